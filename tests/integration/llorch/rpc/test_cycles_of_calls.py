"""What a call takes, at its client and at its server, is freed as it ends, unless it ends with an error of the server:
grpc.aio keeps that in a cycle.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from llorch.errors import DeadlineExceeded
from llorch.rpc.client import DuplexCall, call, open_stream
from support.cycles import cycles_left_by
from support.scripted_service import Script, Serving

CALLS = 8
REQUEST = StringValue(value="x")

Once = Callable[[], Awaitable[None]]


async def answer(_request: Any, _context: Any) -> StringValue:
    return REQUEST


async def answer_never(_request: Any, _context: Any) -> Any:
    await asyncio.Event().wait()


async def write_three(_request: Any, context: Any) -> None:
    for _ in range(3):
        await context.write(REQUEST)


async def write_and_wait(_request: Any, context: Any) -> None:
    await context.write(REQUEST)
    await asyncio.Event().wait()


async def echo(requests: Any, context: Any) -> None:
    async for request in requests:
        await context.write(request)


async def has_no_cycles(once: Once) -> None:
    assert not await cycles_left_by(once, CALLS, "llorch")


async def test_a_call_that_is_answered(script: Script, served: Serving) -> None:
    script.unary = answer

    async def once() -> None:
        await call(served.methods.unary, REQUEST, timeout_s=10)

    await has_no_cycles(once)


async def test_a_call_that_its_deadline_ends(script: Script, served: Serving) -> None:
    script.unary = answer_never

    async def once() -> None:
        with pytest.raises(DeadlineExceeded):
            await call(served.methods.unary, REQUEST, timeout_s=0.02)

    await has_no_cycles(once)


async def test_a_call_whose_caller_is_cancelled(script: Script, served: Serving) -> None:
    script.unary = answer_never

    async def once() -> None:
        calling = asyncio.create_task(call(served.methods.unary, REQUEST, timeout_s=10))
        await asyncio.sleep(0.02)
        calling.cancel()
        await asyncio.wait({calling})

    await has_no_cycles(once)


@pytest.mark.parametrize("behaviour", [write_three, write_and_wait], ids=["read to its end", "left"])
async def test_streams(script: Script, served: Serving, behaviour: Any) -> None:
    script.stream = behaviour

    async def once() -> None:
        async with open_stream(served.methods.stream, REQUEST) as answers:
            async for _ in answers:
                if behaviour is write_and_wait:
                    break

    await has_no_cycles(once)


async def test_a_stream_whose_reader_is_cancelled(script: Script, served: Serving) -> None:
    script.stream = write_and_wait

    async def read() -> None:
        async with open_stream(served.methods.stream, REQUEST) as answers:
            async for _ in answers:
                pass

    async def once() -> None:
        reading = asyncio.create_task(read())
        await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.wait({reading})

    await has_no_cycles(once)


@pytest.mark.parametrize("in_order", [True, False], ids=["closed", "left"])
async def test_duplex_calls(script: Script, served: Serving, *, in_order: bool) -> None:
    script.duplex = echo

    async def once() -> None:
        async with DuplexCall(served.methods.duplex) as both:
            await both.send(REQUEST)
            async for _ in both:
                if not in_order:
                    break
                await both.close()

    await has_no_cycles(once)
