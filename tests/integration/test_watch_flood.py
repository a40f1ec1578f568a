"""One connection that watches the state as often as it can: it is refused beyond the bound, and others are served."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

from llama_orch.v2 import fleet_service_pb2 as pb2
from llama_orch.v2 import fleet_service_pb2_grpc
from llorch.auth import CLIENT_CLASS
from llorch.errors import Reason, ResourceExhausted
from llorch.rpc.client import call, error_from_rpc, open_channel, open_stream
from orchestratord.runtime.state_changes import MOST_ON_A_CONNECTION
from support.whole_system import orchestrator_alone

STREAMS = 1000


async def test_watchers_beyond_the_bound_are_refused_and_others_are_served(tmp_path: Path) -> None:
    ended = Counter[str]()
    shown = 0

    async def watch(stub: fleet_service_pb2_grpc.FleetServiceStub) -> None:
        nonlocal shown
        rpc = stub.WatchState(pb2.WatchStateRequest())
        try:
            await rpc.read()
            shown += 1
            await asyncio.Event().wait()
        except grpc.aio.AioRpcError as error:
            refused = error_from_rpc(error)
            assert isinstance(refused, ResourceExhausted)
            assert "end some of its streams" in refused.message
            ended[refused.reason] += 1
        finally:
            rpc.cancel()

    async with orchestrator_alone(tmp_path) as system, open_channel(system.address) as channel, asyncio.timeout(60):
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        async with asyncio.TaskGroup() as tasks:
            watchers = [tasks.create_task(watch(stub)) for _ in range(STREAMS)]
            while ended.total() + shown < STREAMS:
                await call(system.fleet.GetState, pb2.GetStateRequest(), timeout_s=10)
                await asyncio.sleep(0.01)
            assert shown == MOST_ON_A_CONNECTION
            assert ended == {Reason.TOO_MANY_CALLS: STREAMS - MOST_ON_A_CONNECTION}
            for watcher in watchers:
                watcher.cancel()


async def test_the_connection_of_a_gateway_is_shared_by_more_watchers(tmp_path: Path) -> None:
    async with orchestrator_alone(tmp_path) as system, AsyncExitStack() as stack, asyncio.timeout(30):
        for _ in range(MOST_ON_A_CONNECTION + 10):
            watching = open_stream(
                system.fleet.WatchState, pb2.WatchStateRequest(), metadata=((CLIENT_CLASS, "loopback"),)
            )
            await anext(aiter(await stack.enter_async_context(watching)))
