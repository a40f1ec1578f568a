"""Streams over HTTP, whose clients stay or leave: the daemons take no more memory for it, however many there were.

`make chaos` counts what the processes hold after 80,000 streams. The suite has no time for that, and counts what the
daemons' own loops have allocated: outside of Python's objects to the byte, and Python's memory blocks.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from llama_orch.v2 import catalog_service_pb2, catalog_service_pb2_grpc, model_pb2
from llorch.logs import get_logger
from llorch.ports import split_address
from llorch.rpc.client import call, open_channel
from orchestratord.core.facts import decision
from support import chaos_count, native_memory
from support.up import Up, running_up
from support.whole_system import WholeSystem, gguf, wait_until, whole_system

AT_ONCE = 48
EVENTS_UNTIL_LEAVING = 3
SIM = {"decode_tokens_per_s": 400}

STREAMS = 80_000
PART = 10_000
SETTLED_AFTER = 20_000
"""Finished tasks and the like are kept up to a bound, which is reached by then."""
MOST_PER_PART = 0.5 * 2**20
DAEMONS = ("gatewayd", "orchestratord", "worker_orcd")

KEPT = 20
"""Finished tasks, and decisions: so few that their number does not grow any more after the warm-up."""
WARM_UP = 300
ROUND = 300
ROUNDS = 3
MOST_BYTES = 400
"""Outside of Python, per stream: grpc.aio lost 1,900 for each client that left."""
MOST_BLOCKS = 12
"""Of Python: a task leaves its id behind, for a while, so that its reader can be told that it was there."""

_log = get_logger("chaos")


@dataclass
class Client:
    address: str
    model: str
    tokens: int = 12

    async def stream(self, *, leaves: bool) -> None:
        host, port = split_address(self.address)
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(self._request())
            seen = b""
            while chunk := await reader.read(1 << 16):
                seen += chunk
                if leaves and seen.count(b"data: ") >= EVENTS_UNTIL_LEAVING:
                    return
            assert b"[DONE]" in seen, seen
        finally:
            writer.close()

    def _request(self) -> bytes:
        body = json.dumps(
            {
                "model": self.model,
                "stream": True,
                "max_tokens": self.tokens,
                "messages": [{"role": "user", "content": "how are you"}],
            }
        ).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def in_turns(count: int, once: Callable[[int], Awaitable[None]]) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def in_turn(number: int) -> None:
        async with turn:
            await once(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(in_turn(number))


async def test_streams_whose_clients_leave_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "DECISIONS_KEPT", KEPT)
    settings = {"tasks_retained": KEPT}
    async with whole_system(tmp_path, 64, orchestrator_settings=settings, sim=json.dumps(SIM)) as system:
        client = Client(str(system.http.base_url).removeprefix("http://"), "sim")
        await in_turns(WARM_UP, lambda number: client.stream(leaves=number % 2 == 0))
        await wait_until(partial(has_ended_all, system))
        native, blocks = [], []
        for _ in range(ROUNDS):
            before, before_blocks = native_memory.bytes_in_use(), sys.getallocatedblocks()
            await in_turns(ROUND, lambda _: client.stream(leaves=True))
            await wait_until(partial(has_ended_all, system))
            native.append((native_memory.bytes_in_use() - before) / ROUND)
            blocks.append((sys.getallocatedblocks() - before_blocks) / ROUND)
    _log.info("soak", bytes_per_stream=native, blocks_per_stream=blocks)
    assert min(native) < MOST_BYTES
    assert min(blocks) < MOST_BLOCKS


@pytest.mark.skipif(not chaos_count.IS_FULL, reason="takes minutes; `make chaos` runs it")
async def test_the_processes_hold_no_more_after_80000_streams(tmp_path: Path) -> None:
    async with running_up(tmp_path / "data", "--simulate-gpu", "RTX 3090:24GiB", "--sim", json.dumps(SIM)) as up:
        orchestrator = await up.ready()
        async with open_channel(orchestrator) as channel:
            catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
            spec = model_pb2.ModelSpec(name="m", source=f"file:{gguf(tmp_path)}", slots=64, context=4096)
            await call(catalog.RegisterModel, catalog_service_pb2.RegisterModelRequest(model=spec), timeout_s=10)
        client = Client((await up.read_until(r"HTTP +http://(\S+)")).group(1), "m")
        held = []
        for part in range(STREAMS // PART):
            await in_turns(PART, lambda number: client.stream(leaves=number % 2 == 0))
            held.append(resident(up))
            _log.info("soak", streams=(part + 1) * PART, **held[-1])
    parts = (STREAMS - SETTLED_AFTER) / PART
    grown = {name: (held[-1][name] - held[SETTLED_AFTER // PART - 1][name]) / parts for name in DAEMONS}
    assert all(bytes_ <= MOST_PER_PART for bytes_ in grown.values()), grown


async def has_ended_all(system: WholeSystem) -> bool:
    return not (await system.state()).tasks_running


def resident(up: Up) -> dict[str, int]:
    family = up.family()
    return {name: psutil.Process(family[name].pid).memory_info().rss for name in DAEMONS}
