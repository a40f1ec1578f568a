"""What callers may take of a server: connections, calls, and time until they say what they want."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from llorch.auth import BearerAuth, Identity
from llorch.errors import DeadlineExceeded, InvalidArgument, LlorchError, Reason, ResourceExhausted, Unauthenticated
from llorch.rpc import awaited_requests, call_guard, transport_options
from llorch.rpc.client import call, error_from_rpc, open_channel, open_stream
from support.scripted_service import SERVICE, Methods, Script, Serving, serving

TOKEN = "the token of this server"
REQUEST = StringValue(value="x")


async def answer(request: Any, _context: Any) -> StringValue:
    return StringValue(value=request.value)


def without_request(channel: grpc.aio.Channel) -> Any:
    """A call of the unary method whose request does not come."""
    return channel.stream_unary(f"/{SERVICE}/Unary")()


async def how_it_ends(rpc: Any) -> LlorchError:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await rpc
    return error_from_rpc(ended.value)


class Counting(BearerAuth):
    calls = 0

    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        self.calls += 1
        return super().authenticate(metadata, peer)

    async def seen(self, calls: int) -> None:
        while self.calls < calls:
            await asyncio.sleep(0.001)


async def test_who_may_not_call_is_refused_before_the_request_is_there(script: Script) -> None:
    async with (
        serving(script, authenticator=BearerAuth(TOKEN)) as served,
        asyncio.timeout(10),
    ):
        refused = await how_it_ends(without_request(served.methods.channel))
    assert isinstance(refused, Unauthenticated)
    assert refused.reason is Reason.TOKEN_MISSING


async def test_a_request_that_does_not_come_is_given_up(
    script: Script, served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaited_requests, "_WITHIN_S", 0.05)
    async with asyncio.timeout(10):
        refused = await how_it_ends(without_request(served.methods.channel))
    assert isinstance(refused, DeadlineExceeded)
    assert "the request did not come" in refused.message


async def test_calls_without_requests_take_no_places_and_the_oldest_gives_way(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_guard, "_MOST_AWAITED", 3)
    script.unary = answer
    authenticator = Counting(None)
    async with serving(script, max_calls=1, authenticator=authenticator) as served, asyncio.timeout(10):
        awaited = []
        for number in range(3):
            awaited.append(without_request(served.methods.channel))
            await authenticator.seen(number + 1)
        assert await call(served.methods.unary, REQUEST, timeout_s=5) == REQUEST
        refused = await how_it_ends(awaited[0])
        assert isinstance(refused, ResourceExhausted)
        assert refused.reason is Reason.TOO_MANY_CALLS
        assert "the request did not come" in refused.message
        assert [rpc.done() for rpc in awaited] == [True, False, False]
        await awaited[1].write(REQUEST.SerializeToString())
        await awaited[1].done_writing()
        assert StringValue.FromString(await awaited[1]) == REQUEST
        awaited[2].cancel()


async def test_a_server_that_stops_refuses_calls_whose_request_is_awaited(script: Script) -> None:
    authenticator = Counting(None)
    async with serving(script, authenticator=authenticator) as served, asyncio.timeout(10):
        rpc = without_request(served.methods.channel)
        await authenticator.seen(1)
        await served.server.stop(0)
        refused = await how_it_ends(rpc)
        assert refused.reason is Reason.DRAINING


async def test_a_call_without_a_request_is_malformed(script: Script, served: Serving) -> None:
    rpc = without_request(served.methods.channel)
    async with asyncio.timeout(10):
        await rpc.done_writing()
        refused = await how_it_ends(rpc)
    assert isinstance(refused, InvalidArgument)
    assert refused.reason is Reason.MALFORMED_REQUEST


async def test_streams_are_bounded_and_the_refusal_says_so(script: Script) -> None:
    async def write_once(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        await asyncio.Event().wait()

    script.stream, script.unary = write_once, answer
    async with serving(script, max_streams=1) as served, open_stream(served.methods.stream, REQUEST) as first:
        await anext(aiter(first))
        async with open_stream(served.methods.stream, REQUEST) as second:
            with pytest.raises(LlorchError, match="1 streams") as refused:
                await anext(aiter(second))
        assert refused.value.reason is Reason.TOO_MANY_CALLS
        assert await call(served.methods.unary, REQUEST, timeout_s=10) == REQUEST


@pytest.mark.parametrize(("max_connections", "expected"), [(1, 100), (2, 150)])
async def test_a_channel_holds_back_what_its_connections_do_not_take(
    script: Script, served: Serving, max_connections: int, expected: int
) -> None:
    """No call is refused for that: each comes when others have ended."""
    begun, go_on = Counter[str](), asyncio.Event()
    has_begun = asyncio.Event()

    async def wait_and_answer(request: Any, context: Any) -> StringValue:
        begun[context.peer()] += 1
        if begun.total() == expected:
            has_begun.set()
        await go_on.wait()
        return StringValue(value=request.value)

    script.unary = wait_and_answer
    async with open_channel(served.address, max_connections=max_connections) as channel, asyncio.timeout(20):
        methods = Methods(channel)
        calls = [asyncio.ensure_future(call(methods.unary, REQUEST, timeout_s=20)) for _ in range(150)]
        await has_begun.wait()
        assert len(begun) == max_connections
        assert max(begun.values()) == transport_options.CALLS_PER_CONNECTION
        go_on.set()
        await asyncio.gather(*calls)
    assert begun.total() == 150


async def test_a_client_that_keeps_to_the_bound_is_never_refused(script: Script, served: Serving) -> None:
    """The library counts calls that have ended, and so refused a third of these."""
    script.unary = answer
    async with asyncio.timeout(60):
        await asyncio.gather(*[call(served.methods.unary, REQUEST, timeout_s=60) for _ in range(2000)])


async def test_connections_are_bounded_and_a_silent_one_is_ended(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_options, "_MOST_CONNECTIONS", 3)
    monkeypatch.setattr(transport_options, "_HANDSHAKE_WITHIN_MS", 500)
    script.unary = answer
    async with serving(script) as served, asyncio.timeout(20):
        host, _, port = served.address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        try:
            # Those beyond the bound end without a byte of the server, and the others when they have said nothing.
            heard = await asyncio.gather(*[reader.read() for reader, _ in opened])
        finally:
            for _, writer in opened:
                writer.close()
        assert [len(bytes_) > 0 for bytes_ in heard] == [True] * 3 + [False] * 2
        assert await call(served.methods.unary, REQUEST, timeout_s=10) == REQUEST


async def test_a_connection_without_calls_ends_and_the_channel_opens_another(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_options, "_WITHOUT_CALLS_MS", 300)
    peers: list[str] = []

    async def note(request: Any, context: Any) -> StringValue:
        peers.append(context.peer())
        return await answer(request, context)

    script.unary = note
    async with serving(script) as served, asyncio.timeout(20):
        await call(served.methods.unary, REQUEST, timeout_s=10)
        while served.methods.channel.get_state() is grpc.ChannelConnectivity.READY:
            await asyncio.sleep(0.02)
        await call(served.methods.unary, REQUEST, timeout_s=10)
    assert len(set(peers)) == 2


async def test_a_large_request_of_who_may_not_call_gets_the_same_answer(script: Script) -> None:
    """The refusal comes while it is still being sent."""
    large = StringValue(value="x" * 8 * 2**20)
    async with serving(script, authenticator=BearerAuth(TOKEN)) as served:
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                await call(served.methods.unary, large, timeout_s=10)
