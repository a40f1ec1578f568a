"""Calls that end early leave no memory behind outside of Python.

Not here, since grpc.aio leaves no way round it: a handler whose client leaves just while it writes loses about 0.3 KiB.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from llorch.errors import LlorchError, Reason
from llorch.rpc import awaited_requests
from llorch.rpc.client import call, open_stream
from support import native_memory
from support.scripted_service import SERVICE, Script, Serving

WARM_UP = 300
CALLS = 800
AT_ONCE = 24
# What grpc.aio loses of a call that is left in the midst of a batch is 170 bytes and more.
NOTHING = 60
SETTLED = 8 * 1024
REQUEST = StringValue(value="x" * 2000)

Once = Callable[[], Awaitable[None]]


async def bytes_per_call(once: Once) -> float:
    """The least of three rounds: what leaks does so in each, and what a pool or a table takes comes once."""
    await _repeat(once, WARM_UP)
    grown = []
    for _ in range(3):
        before = await _settled_bytes()
        await _repeat(once, CALLS)
        grown.append((await _settled_bytes() - before) / CALLS)
    return min(grown)


async def _settled_bytes() -> int:
    """Once the servers' sides of the calls have ended, too: on a busy machine some of them are still to hear of it."""
    bytes_before = 0
    async with asyncio.timeout(10):
        while abs((bytes_now := native_memory.bytes_in_use()) - bytes_before) >= SETTLED:
            bytes_before = bytes_now
            await asyncio.sleep(0.1)
    return bytes_now


async def _repeat(once: Once, count: int) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def in_turn() -> None:
        async with turn:
            await once()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(in_turn())


async def _cancelled(doing: Any, begun: asyncio.Event | None = None) -> None:
    task = asyncio.ensure_future(doing)
    if begun is None:
        await asyncio.sleep(0)
    else:
        await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_reader_that_is_cancelled_while_it_waits_leaves_nothing(script: Script, served: Serving) -> None:
    async def write_once(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        await asyncio.Event().wait()

    script.stream = write_once

    async def once() -> None:
        has_read = asyncio.Event()

        async def read() -> None:
            async with open_stream(served.methods.stream, REQUEST) as answers:
                async for _ in answers:
                    has_read.set()

        await _cancelled(read(), has_read)

    assert await bytes_per_call(once) < NOTHING


async def test_a_caller_that_is_cancelled_leaves_nothing(script: Script, served: Serving) -> None:
    begun: dict[str, asyncio.Event] = {}

    async def answer_never(request: Any, _context: Any) -> StringValue:
        begun.pop(request.value).set()
        await asyncio.Event().wait()
        return REQUEST

    script.unary = answer_never
    number = iter(range(1_000_000))

    async def once() -> None:
        name = f"{next(number):02000}"
        begun[name] = has_begun = asyncio.Event()
        await _cancelled(call(served.methods.unary, StringValue(value=name), timeout_s=30), has_begun)

    assert await bytes_per_call(once) < NOTHING


async def test_a_call_that_ends_by_its_deadline_leaves_nothing(script: Script, served: Serving) -> None:
    async def answer_never(_request: Any, _context: Any) -> StringValue:
        await asyncio.Event().wait()
        return REQUEST

    script.unary = answer_never

    async def once() -> None:
        with pytest.raises(LlorchError) as ended:
            await call(served.methods.unary, REQUEST, timeout_s=0.01)
        assert ended.value.reason is Reason.DEADLINE_PASSED

    assert await bytes_per_call(once) < NOTHING


async def test_a_call_whose_request_does_not_come_leaves_nothing(
    script: Script, served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaited_requests, "_WITHIN_S", 0.01)
    method: Any = served.methods.channel.stream_unary(f"/{SERVICE}/Unary")

    async def once() -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="the request did not come"):
            await method()

    assert await bytes_per_call(once) < NOTHING
