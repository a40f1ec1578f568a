"""A worker with the simulated engine, served on a free port, in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llama_orch.v2 import control_pb2, run_pb2, worker_service_pb2_grpc
from llorch.auth import BearerAuth
from llorch.clock import SystemClock
from llorch.rpc.client import open_channel
from llorch.rpc.server import RpcServer
from worker_orcd.api.worker_servicer import WorkerServicer
from worker_orcd.app import SERVICE
from worker_orcd.engines.sim.engine import SimEngine, SimShape
from worker_orcd.engines.sim.parameters import SimParameters
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.run_table import RunTable

CONTROL = control_pb2.ControlHeader(cluster_id="c", control_epoch=1, command_seq=1)


def run_spec(prompt: str = "hi", *, max_tokens: int | None = 5, seed: int = 7) -> run_pb2.RunSpec:
    spec = run_pb2.RunSpec()
    spec.generate.prompt = prompt
    spec.generate.sampling.seed = seed
    if max_tokens is not None:
        spec.generate.max_tokens = max_tokens
    return spec


@dataclass(frozen=True, slots=True)
class Served:
    stub: "worker_service_pb2_grpc.WorkerServiceStub"
    keeper: RunKeeper
    stop: asyncio.Event


StartWorker = Callable[..., Awaitable[Served]]


@asynccontextmanager
async def serve_worker(parameters: SimParameters, slots: int) -> AsyncIterator[Served]:
    engine = SimEngine(parameters, SimShape("m", slots=slots, context_per_slot=4096))
    await engine.load()
    clock = SystemClock()
    keeper = RunKeeper(engine, RunTable(clock, slots), clock)
    stop = asyncio.Event()
    servicer = WorkerServicer("w1", stop)
    servicer.open(keeper)
    server = RpcServer(name="worker-orcd", bind="127.0.0.1:0", authenticator=BearerAuth(None))
    server.add(SERVICE, worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, servicer)
    channel = open_channel(await server.start())
    try:
        yield Served(worker_service_pb2_grpc.WorkerServiceStub(channel), keeper, stop)
    finally:
        await channel.close(None)
        servicer.close()
        await server.stop(grace_s=1.0)
        await engine.close()
