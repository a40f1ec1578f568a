"""The orchestrator as a process that can be killed and started again, with the same data and address."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from llama_orch.v2 import fleet_service_pb2, fleet_service_pb2_grpc
from llorch.errors import LlorchError
from llorch.rpc.client import call, open_channel
from support.daemon_process import DaemonProcess

SERVES_WITHIN_S = 30.0
_POLL_S = 0.02


@dataclass
class OrchestratorProcess(DaemonProcess):
    module: ClassVar[str] = "orchestratord"
    token: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.token:
            self.environment = {"LLORCH_ORCHESTRATOR_TOKEN": self.token}

    def usual_flags(self) -> Mapping[str, object]:
        return {"data_dir": self.folder / "data", "drain_s": 0, "package_models": False}

    async def wait_serving(self) -> None:
        async with asyncio.timeout(SERVES_WITHIN_S), open_channel(self.address, token=self.token) as channel:
            fleet = fleet_service_pb2_grpc.FleetServiceStub(channel)
            while True:
                self.check_runs()
                try:
                    await call(fleet.GetState, fleet_service_pb2.GetStateRequest(), timeout_s=2)
                except LlorchError:
                    await asyncio.sleep(_POLL_S)
                else:
                    return
