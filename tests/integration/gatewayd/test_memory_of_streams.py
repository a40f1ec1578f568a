"""Clients that leave in the midst of a stream leave no memory behind outside of Python; Python's own is counted too."""

import asyncio
import gc
import statistics
import sys
from typing import Any

from llama_orch.v2 import task_event_pb2, task_service_pb2
from llorch.ports import split_address
from support import native_memory

from .conftest import StartGateway
from .fake_orchestrator import FakeOrchestrator

AT_ONCE = 32
WARM_UP = 400
STREAMS = 400
ROUNDS = 3
MOST_BYTES = 300
"""Per stream, in the middle round; grpc.aio lost 500 and more of each that was left while it was waited for."""
MOST_BLOCKS = 2
SETTLED_BLOCKS = 100


async def test_streams_that_are_left_leave_nothing(start_gateway: StartGateway, orchestrator: FakeOrchestrator) -> None:
    event = task_event_pb2.TaskEvent(tokens=task_event_pb2.Tokens(text="word " * 10), cursor="c")

    async def write_on(_request: Any, context: Any) -> None:
        while True:
            await context.write(task_service_pb2.StreamTaskResponse(event=event))
            await asyncio.sleep(0.002)  # so long a token takes

    orchestrator.on("StreamTask", write_on)
    gateway = await start_gateway()
    await leave(gateway.address, WARM_UP)
    native, blocks = [], []
    for _ in range(ROUNDS):
        before, blocks_before = await memory_in_use()
        await leave(gateway.address, STREAMS)
        after, blocks_after = await memory_in_use()
        native.append((after - before) / STREAMS)
        blocks.append((blocks_after - blocks_before) / STREAMS)
    assert statistics.median(native) < MOST_BYTES, native
    assert statistics.median(blocks) < MOST_BLOCKS, blocks


async def memory_in_use() -> tuple[int, int]:
    """Bytes outside of Python, and Python's blocks, once what is on its way out has gone: streams that end, timers that
    were cancelled, and what Python's collector comes to only now and then.
    """
    blocks_before = 0
    async with asyncio.timeout(20):
        while True:
            gc.collect()
            blocks = sys.getallocatedblocks()
            if abs(blocks - blocks_before) < SETTLED_BLOCKS:
                return native_memory.bytes_in_use(), blocks
            blocks_before = blocks
            await asyncio.sleep(0.2)


async def leave(address: str, streams: int) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def once() -> None:
        async with turn:
            host, port = split_address(address)
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /v2/tasks/t/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                seen = b""
                while seen.count(b"data: ") < 3:
                    chunk = await reader.read(1 << 16)
                    assert chunk, seen
                    seen += chunk
            finally:
                writer.close()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(once())
