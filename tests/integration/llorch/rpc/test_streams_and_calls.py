"""What a client does with streams, and what its calls carry."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from llorch import errors
from llorch.auth import BearerAuth
from llorch.errors import Reason
from llorch.rpc.call_context import CallInfo, current_call
from llorch.rpc.client import DuplexCall, call, open_channel, open_stream
from llorch.rpc.http_status import HTTP_STATUS
from llorch.rpc.slow_reader import write_with_deadline
from support.scripted_service import Script, Serving, serving

REQUEST = StringValue(value="x")
LARGE = StringValue(value="x" * 20_000)


async def read_to_the_end(events: AsyncIterator[Any]) -> None:
    async for _ in events:
        pass


async def echo(request: Any, _context: Any) -> Any:
    return request


async def test_a_stream_ends_when_the_handler_returns(script: Script, served: Serving) -> None:
    async def count(_request: Any, context: Any) -> None:
        for number in range(1000):
            await context.write(StringValue(value=str(number)))

    script.stream = count
    async with open_stream(served.methods.stream, REQUEST, timeout_s=5, idle_timeout_s=5) as events:
        assert [event.value async for event in events] == [str(number) for number in range(1000)]


async def test_a_silent_stream_is_given_up_after_its_idle_timeout(script: Script, served: Serving) -> None:
    async def once(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        await asyncio.Event().wait()

    script.stream = once
    async with open_stream(served.methods.stream, REQUEST, idle_timeout_s=0.1) as events:
        await anext(events)
        with pytest.raises(errors.DeadlineExceeded, match=r"nothing came for 0.1 s"):
            await anext(events)


async def test_a_slow_consumer_is_no_silent_stream(script: Script, served: Serving) -> None:
    async def three(_request: Any, context: Any) -> None:
        for _ in range(3):
            await context.write(REQUEST)

    script.stream = three
    seen = 0
    await served.methods.channel.channel_ready()  # on a busy machine, connecting is silence as well
    async with open_stream(served.methods.stream, REQUEST, idle_timeout_s=0.2) as events:
        async for _ in events:
            seen += 1
            await asyncio.sleep(0.4)
    assert seen == 3


async def test_an_own_stall_is_no_silence_of_the_peer(script: Script, served: Serving) -> None:
    async def later(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        await asyncio.sleep(0)
        await context.write(REQUEST)

    script.stream = later
    async with open_stream(served.methods.stream, REQUEST, idle_timeout_s=0.1) as events:
        await anext(events)
        second = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        time.sleep(1.2)  # noqa: ASYNC251  # the stall of the loop is what is tested
        assert (await second).value == "x"


async def test_leaving_the_block_cancels_the_call(script: Script, served: Serving) -> None:
    ended = asyncio.Event()

    async def flood(_request: Any, context: Any) -> None:
        try:
            while True:
                await context.write(REQUEST)
        finally:
            ended.set()

    script.stream = flood
    async with open_stream(served.methods.stream, REQUEST) as events:
        async for _ in events:
            break
    async with asyncio.timeout(2):
        await ended.wait()


async def test_a_cancelled_consumer_stays_cancelled(script: Script, served: Serving) -> None:
    async def silent(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        await asyncio.Event().wait()

    script.stream = silent
    reading = asyncio.Event()

    async def consume() -> None:
        async with open_stream(served.methods.stream, REQUEST, idle_timeout_s=5) as events:
            async for _ in events:
                reading.set()

    consumer = asyncio.create_task(consume())
    await reading.wait()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer


async def test_a_cancelled_call_stays_cancelled(script: Script, served: Serving) -> None:
    started = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    script.unary = wait
    calling = asyncio.create_task(call(served.methods.unary, REQUEST, timeout_s=5))
    await started.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_call_that_the_peer_cancels_is_an_error_and_no_cancellation(script: Script, served: Serving) -> None:
    import grpc

    async def cancelled(_request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.CANCELLED, "")

    script.unary = script.stream = cancelled
    with pytest.raises(errors.Unavailable):
        await call(served.methods.unary, REQUEST, timeout_s=5)
    async with open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
        with pytest.raises(errors.Unavailable):
            await anext(events)


async def test_a_reader_that_does_not_read_is_dropped_and_told_when_it_does(script: Script, served: Serving) -> None:
    dropped = asyncio.Event()

    async def flood(_request: Any, context: Any) -> None:
        try:
            while True:
                await write_with_deadline(context, LARGE, 0.2)
        finally:
            dropped.set()

    script.stream = flood
    script.unary = echo
    async with open_stream(served.methods.stream, REQUEST, timeout_s=10) as events:
        await anext(events)
        async with asyncio.timeout(5):
            await dropped.wait()
        assert (await call(served.methods.unary, REQUEST, timeout_s=5)).value == "x"
        with pytest.raises(errors.Unavailable) as caught:
            await read_to_the_end(events)
        assert caught.value.reason is Reason.SLOW_READER


async def test_stop_is_not_held_up_by_a_reader_that_does_not_read(script: Script) -> None:
    stalled = asyncio.Event()

    async def flood(_request: Any, context: Any) -> None:
        try:
            while True:
                async with asyncio.timeout(0.1):
                    await context.write(LARGE)
        finally:
            stalled.set()

    script.stream = flood
    async with serving(script) as served, open_stream(served.methods.stream, REQUEST, timeout_s=20) as events:
        await anext(events)
        await stalled.wait()
        async with asyncio.timeout(4):
            await served.server.stop(0)


async def test_a_duplex_call_carries_messages_both_ways(script: Script, served: Serving) -> None:
    async def reply(requests: Any, context: Any) -> None:
        async for request in requests:
            await context.write(StringValue(value=request.value * 2))

    script.duplex = reply
    async with DuplexCall[StringValue, StringValue](served.methods.duplex, idle_timeout_s=5) as link:
        for text in ("a", "b"):
            await link.send(StringValue(value=text))
            assert (await anext(aiter(link))).value == text * 2
        await link.close()
        assert [message async for message in link] == []


async def send_without_end(link: DuplexCall[StringValue, StringValue], message: StringValue) -> None:
    while True:
        await link.send(message)


async def refuse(_requests: Any, _context: Any) -> None:
    raise errors.FailedPrecondition(Reason.STALE_EPOCH, "a newer brain has taken over")


async def test_a_duplex_call_that_is_refused_says_why_to_the_reader(script: Script, served: Serving) -> None:
    script.duplex = refuse
    async with DuplexCall[StringValue, StringValue](served.methods.duplex, timeout_s=5) as link:
        with pytest.raises(errors.FailedPrecondition, match="newer brain"):
            await anext(aiter(link))
        with pytest.raises(errors.FailedPrecondition, match="newer brain"):
            await link.send(REQUEST)


async def test_writing_to_a_duplex_call_that_ends_is_no_internal_error(script: Script, served: Serving) -> None:
    script.duplex = refuse
    for _ in range(20):
        async with DuplexCall[StringValue, StringValue](served.methods.duplex, timeout_s=5) as link:
            with pytest.raises((errors.FailedPrecondition, errors.Unavailable)):
                await send_without_end(link, REQUEST)


async def test_a_send_to_a_peer_that_does_not_read_ends_the_call(script: Script, served: Serving) -> None:
    async def ignore(_requests: Any, context: Any) -> None:
        await context.write(REQUEST)
        await asyncio.Event().wait()

    script.duplex = ignore
    async with DuplexCall[StringValue, StringValue](served.methods.duplex, write_timeout_s=0.2) as link:
        with pytest.raises(errors.Unavailable) as caught:
            await send_without_end(link, LARGE)
        assert caught.value.reason is Reason.SLOW_READER


async def test_the_correlation_id_goes_along_with_calls_made_by_a_handler(script: Script) -> None:
    inner = Script()
    seen: list[CallInfo] = []

    async def remember(request: Any, _context: Any) -> Any:
        seen.append(current_call())
        return request

    inner.unary = remember
    async with serving(inner) as behind:

        async def relay(request: Any, _context: Any) -> Any:
            return await call(behind.methods.unary, request, timeout_s=5)

        script.unary = relay
        async with serving(script) as front:
            await call(front.methods.unary, REQUEST, timeout_s=5, metadata=(("x-correlation-id", "from-the-client"),))
            await call(front.methods.unary, REQUEST, timeout_s=5, metadata=(("x-correlation-id", "not an id"),))
    assert seen[0].correlation_id == "from-the-client"
    assert seen[1].correlation_id.startswith("cor-")
    assert seen[0].identity == "localhost"
    assert seen[0].deadline_s is not None
    assert 4 < seen[0].deadline_s < 5.1


async def test_a_token_is_shown_by_channel_or_by_call(script: Script) -> None:
    names: list[str] = []

    async def remember(request: Any, _context: Any) -> Any:
        names.append(current_call().identity)
        return request

    script.unary = remember
    strict = BearerAuth("s3cret")
    async with serving(script, authenticator=strict, token="s3cret") as served:
        await call(served.methods.unary, REQUEST, timeout_s=5)
        with pytest.raises(errors.Unauthenticated) as wrong:
            await call(served.methods.unary, REQUEST, timeout_s=5, token="other")
        assert wrong.value.reason is Reason.TOKEN_INVALID
        async with open_channel(served.address) as bare:
            method: Any = bare.unary_unary("/test.Scripted/Unary")
            with pytest.raises(errors.Unauthenticated) as missing:
                await call(method, b"", timeout_s=5)
            assert missing.value.reason is Reason.TOKEN_MISSING
            await call(method, b"", timeout_s=5, token="s3cret")
    assert names == ["token:1ec1c2", "token:1ec1c2"]


async def test_nothing_is_answered_without_the_token_not_even_health_and_reflection(script: Script) -> None:
    strict = BearerAuth("s3cret")
    async with serving(script, authenticator=strict) as served:
        for path in ("/grpc.health.v1.Health/Check", "/test.Scripted/Nothing"):
            method: Any = served.methods.channel.unary_unary(path)
            with pytest.raises(errors.Unauthenticated):
                await call(method, b"", timeout_s=5)
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        reflect: Any = served.methods.channel.stream_stream(path)
        async with DuplexCall[Any, Any](reflect, timeout_s=5) as exchange:
            with pytest.raises(errors.Unauthenticated):
                await anext(aiter(exchange))


def test_there_is_no_current_call_outside_of_a_handler() -> None:
    with pytest.raises(LookupError):
        current_call()


def test_every_leaf_has_an_http_status() -> None:
    for leaf in errors.LlorchError.__subclasses__():
        assert 400 <= HTTP_STATUS[leaf.code] < 600


async def test_a_call_on_a_channel_that_was_closed_is_an_error_of_the_tree(served: Serving) -> None:
    await served.methods.channel.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        await call(served.methods.unary, REQUEST, timeout_s=5)
