"""Hosts that come, are commanded and are forgotten leave the orchestrator as it was: tasks, channels and files."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from llama_orch.v2 import fleet_service_pb2, node_pb2
from llorch.errors import LlorchError
from llorch.rpc.client import call, open_stream
from support.free_ports import free_port
from support.linked_node import linked
from support.whole_system import CALL_S, SILENT_S, WholeSystem, orchestrator_alone, wait_until

HOSTS = 8
_OPEN_FILES = Path("/proc/self/fd")


@asynccontextmanager
async def hosts(system: WholeSystem, names: Sequence[str]) -> AsyncIterator[None]:
    """None of them is reached by commands: nothing listens where they say."""
    async with AsyncExitStack() as stack:
        for name in names:
            folder = system.folder / name
            folder.mkdir()
            address = f"127.0.0.1:{free_port()}"
            await stack.enter_async_context(
                linked(system.address, address, f"card of {name}", folder / "control.json", node_id=name)
            )
        await wait_states(system, names, {node_pb2.NODE_STATE_READY})
        yield


async def wait_states(system: WholeSystem, names: Sequence[str], states: set[int]) -> None:
    async def are_so() -> bool:
        there = {node.node_id: node.state for node in (await system.state()).nodes}
        return all(there.get(name) in states for name in names)

    await wait_until(are_so, timeout_s=20)


async def command(system: WholeSystem, name: str) -> None:
    """The orchestrator opens a channel for it, whatever comes of it."""
    request = fleet_service_pb2.StreamWorkerLogRequest(worker_id=f"worker-on-{name}")
    try:
        async with open_stream(system.fleet.StreamWorkerLog, request, idle_timeout_s=SILENT_S) as answers:
            async for _ in answers:
                pass
    except LlorchError:
        return


async def come_and_go(system: WholeSystem, names: Sequence[str]) -> None:
    async with hosts(system, names):
        await command(system, names[0])
    await wait_states(system, names, {node_pb2.NODE_STATE_SUSPECT, node_pb2.NODE_STATE_LOST})
    for name in names:
        await call(system.fleet.DeregisterNode, fleet_service_pb2.DeregisterNodeRequest(node_id=name), timeout_s=CALL_S)


def held() -> dict[str, int]:
    """Open files are sockets too. Channels that are closed and were not collected yet do not count."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "files": sum(1 for _ in _OPEN_FILES.iterdir()),
        "channels": sum(isinstance(thing, grpc.aio.Channel) for thing in gc.get_objects()),
    }


async def test_hosts_that_are_forgotten_leave_no_channel_task_or_file(tmp_path: Path) -> None:
    async with orchestrator_alone(tmp_path) as system:
        await come_and_go(system, [f"first-{number}" for number in range(HOSTS)])
        before = held()
        for turn in range(2):
            await come_and_go(system, [f"turn-{turn}-{number}" for number in range(HOSTS)])

        async def is_as_before() -> bool:
            return all(count <= before[what] for what, count in held().items())

        await wait_until(is_as_before)
