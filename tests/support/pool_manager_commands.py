"""An orchestrator's commands to one pool manager, told to it by a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llama_orch.v2 import control_pb2, worker_pb2
from llama_orch.v2 import pool_manager_service_pb2 as pb
from llama_orch.v2.pool_manager_service_pb2_grpc import PoolManagerServiceStub
from llorch.rpc.client import call, open_channel

CALL_S = 10.0


@dataclass
class PoolManagerCommands:
    """`command_seq` goes on where the test's last one ended."""

    stub: PoolManagerServiceStub
    cluster_id: str
    control_epoch: int = 1
    command_seq: int = 0

    def control(self) -> control_pb2.ControlHeader:
        self.command_seq += 1
        return control_pb2.ControlHeader(
            cluster_id=self.cluster_id, control_epoch=self.control_epoch, command_seq=self.command_seq
        )

    async def start(self, source: str, worker_id: str, **fields: Any) -> worker_pb2.WorkerState.ValueType:
        spec = worker_pb2.WorkerSpec(
            **{
                "worker_id": worker_id,
                "model": "tiny",
                "source": source,
                "device_ids": ["sim-0"],
                "slots": 2,
                "context_per_slot": 100_000,
                "reservation_mib": [500],
                **fields,
            }
        )
        request = pb.PoolManagerServiceStartWorkerRequest(control=self.control(), spec=spec)
        return (await call(self.stub.StartWorker, request, timeout_s=CALL_S)).state

    async def stop(self, worker_id: str) -> worker_pb2.WorkerState.ValueType:
        request = pb.PoolManagerServiceStopWorkerRequest(control=self.control(), worker_id=worker_id)
        return (await call(self.stub.StopWorker, request, timeout_s=CALL_S)).state


@asynccontextmanager
async def commanding(address: str, cluster_id: str = "cluster") -> AsyncIterator[PoolManagerCommands]:
    async with open_channel(address) as channel:
        yield PoolManagerCommands(PoolManagerServiceStub(channel), cluster_id)
