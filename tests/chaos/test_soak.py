"""Streams over HTTP, half of whose clients leave: the daemons take no more memory for it, however many there were.

Only by `make chaos`, and for twice as many by `make chaos-long`. What is counted per call and stream, in little time,
is in `tests/integration`: `llorch/rpc/test_memory_of_calls.py` and `gatewayd/test_memory_of_streams.py`.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from llama_orch.v2 import catalog_service_pb2, catalog_service_pb2_grpc, model_pb2
from llorch.logs import get_logger
from llorch.ports import split_address
from llorch.rpc.client import call, open_channel
from support import chaos_count
from support.up import Up, running_up
from support.whole_system import gguf

pytestmark = [pytest.mark.busy, pytest.mark.long, pytest.mark.timeout(1800)]

AT_ONCE = 48
EVENTS_UNTIL_LEAVING = 3
SIM = {"decode_tokens_per_s": 400}

STREAMS = 40_000 * min(2, chaos_count.of(1))
PART = 10_000
SETTLED_AFTER = 20_000
"""Finished tasks and the like are kept up to a bound, which is reached by then."""
MOST_PER_PART = 0.5 * 2**20
MOST_IN_POOL = (os.cpu_count() or 1) + 4
"""Threads of asyncio's pool, which it starts when several calls of a moment need one."""
DAEMONS = ("gatewayd", "orchestratord", "worker_orcd")

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


@pytest.mark.skipif(not chaos_count.IS_FULL, reason="takes minutes; `make chaos` runs it")
async def test_the_processes_hold_no_more_after_many_streams(tmp_path: Path) -> None:
    async with running_up(tmp_path / "data", "--simulate-gpu", "RTX 3090:24GiB", "--sim", json.dumps(SIM)) as up:
        orchestrator = await up.ready()
        async with open_channel(orchestrator) as channel:
            catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
            spec = model_pb2.ModelSpec(name="m", source=f"file:{gguf(tmp_path)}", slots=64, context=4096)
            await call(catalog.RegisterModel, catalog_service_pb2.RegisterModelRequest(model=spec), timeout_s=10)
        client = Client((await up.read_until(r"HTTP +http://(\S+)")).group(1), "m")
        held, opened = [], []
        for part in range(STREAMS // PART):
            await in_turns(PART, lambda number: client.stream(leaves=number % 2 == 0))
            held.append(resident(up))
            opened.append(handles(up))
            _log.info("soak", streams=(part + 1) * PART, handles=opened[-1], **held[-1])
    parts = (STREAMS - SETTLED_AFTER) / PART
    grown = {name: (held[-1][name] - held[SETTLED_AFTER // PART - 1][name]) / parts for name in DAEMONS}
    assert all(bytes_ <= MOST_PER_PART for bytes_ in grown.values()), grown
    for name in DAEMONS:
        (descriptors, threads), (descriptors_before, threads_before) = opened[-1][name], opened[0][name]
        assert descriptors == descriptors_before, name
        assert threads <= threads_before + MOST_IN_POOL, name


def handles(up: Up) -> dict[str, tuple[int, int]]:
    """Open descriptors and threads."""
    family = up.family()
    processes = {name: psutil.Process(family[name].pid) for name in DAEMONS}
    return {name: (process.num_fds(), process.num_threads()) for name, process in processes.items()}


def resident(up: Up) -> dict[str, int]:
    family = up.family()
    return {name: psutil.Process(family[name].pid).memory_info().rss for name in DAEMONS}
