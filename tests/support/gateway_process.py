"""The gateway as a process that can be killed and started again, under the same address."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import httpx

from support.daemon_process import DaemonProcess

SERVES_WITHIN_S = 30.0
_POLL_S = 0.02


@dataclass
class GatewayProcess(DaemonProcess):
    module: ClassVar[str] = "gatewayd"
    orchestrator: str

    def usual_flags(self) -> Mapping[str, object]:
        return {"orchestrator": self.orchestrator}

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def wait_serving(self) -> None:
        """Whether its orchestrator answers does not matter."""
        async with asyncio.timeout(SERVES_WITHIN_S), httpx.AsyncClient(trust_env=False) as http:
            while True:
                self.check_runs()
                try:
                    await http.get(f"{self.url}/v2/nodes")
                except httpx.TransportError:
                    await asyncio.sleep(_POLL_S)
                else:
                    return
