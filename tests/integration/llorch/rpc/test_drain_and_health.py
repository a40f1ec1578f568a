"""How a server starts, says how it is, and ends."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from llorch import errors, ports
from llorch.auth import BearerAuth
from llorch.errors import Reason
from llorch.ports import PortTaken
from llorch.rpc.client import DuplexCall, call, open_channel, open_stream
from llorch.rpc.server import RpcServer
from support.scripted_service import SERVICE, Script, Serving, add_to_server, serving

REQUEST = StringValue(value="x")
NOTHING = health_pb2.HealthCheckRequest()
_Status = health_pb2.HealthCheckResponse


def make_stub(stub_class: Any, channel: grpc.aio.Channel) -> Any:
    """These libraries ship no types."""
    return stub_class(channel)


class Endless:
    """A stream handler that writes once, waits to be cancelled, and takes its time to clean up."""

    def __init__(self, cleanup_s: float = 0.05) -> None:
        self.cleanup_s = cleanup_s
        self.cleaned_up = False
        self.waits = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, _request: Any, context: Any) -> None:
        try:
            await context.write(REQUEST)
            self.waits.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.cleanup_s)
            self.cleaned_up = True
            self.ended.set()


async def test_stop_waits_for_the_finally_blocks_and_tells_the_client(script: Script) -> None:
    handler = script.stream = Endless()
    async with serving(script) as served, open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
        await anext(events)
        await handler.waits.wait()  # the library loses the status of a handler that is cancelled within a write
        await served.server.stop(grace_s=0)
        assert handler.cleaned_up
        with pytest.raises(errors.Unavailable) as caught:
            await anext(events)
        assert caught.value.reason is Reason.DRAINING


async def test_a_drain_lets_a_call_finish(script: Script) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, _context: Any) -> Any:
        started.set()
        await finish.wait()
        return request

    script.unary = handler
    async with serving(script) as served, asyncio.TaskGroup() as group:
        answer = group.create_task(call(served.methods.unary, REQUEST, timeout_s=5))
        await started.wait()
        stopping = group.create_task(served.server.stop(grace_s=5))
        await served.server.draining.wait()
        finish.set()
        assert (await answer).value == "x"
        await stopping


async def test_a_drain_refuses_new_calls_with_a_reason(script: Script) -> None:
    handler = script.stream = Endless()
    async with serving(script) as served, asyncio.TaskGroup() as group:
        async with open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
            await anext(events)
            stopping = group.create_task(served.server.stop(grace_s=5))
            await served.server.draining.wait()
            with pytest.raises(errors.Unavailable) as caught:
                await call(served.methods.unary, REQUEST, timeout_s=5)
            assert caught.value.reason is Reason.DRAINING
            assert caught.value.retry_after_ms is not None
        await handler.ended.wait()
        await stopping


async def test_stop_is_bounded_though_a_handler_clings_on(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llorch.rpc.server._CLEANUP_S", 0.1)
    monkeypatch.setattr("llorch.rpc.server._CLOSE_S", 0.2)
    clings, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def cling(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        clings.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        ended.set()

    script.stream = cling
    async with serving(script) as served, open_stream(served.methods.stream, REQUEST, timeout_s=20) as events:
        await anext(events)
        await clings.wait()  # a message may be here before its writer has gone on
        async with asyncio.timeout(2):
            await served.server.stop(grace_s=0)
        assert not ended.is_set()
        release.set()
        await ended.wait()


async def test_a_handler_is_cancelled_when_its_client_leaves(script: Script, served: Serving) -> None:
    handler = script.stream = Endless()
    async with open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
        await anext(events)
    async with asyncio.timeout(2):
        await handler.ended.wait()


async def test_a_handler_is_cancelled_when_its_deadline_passes(script: Script, served: Serving) -> None:
    handler = script.stream = Endless()
    async with open_stream(served.methods.stream, REQUEST, timeout_s=0.1) as events:
        with pytest.raises(errors.DeadlineExceeded):
            async for _ in events:
                pass
        async with asyncio.timeout(2):
            await handler.ended.wait()


async def test_health_follows_the_state(served: Serving) -> None:
    health = make_stub(health_pb2_grpc.HealthStub, served.methods.channel)
    one = health_pb2.HealthCheckRequest(service=SERVICE)
    assert (await call(health.Check, one, timeout_s=5)).status == _Status.SERVING
    served.server.set_serving(False)
    assert (await call(health.Check, one, timeout_s=5)).status == _Status.NOT_SERVING
    listed = await call(health.List, health_pb2.HealthListRequest(), timeout_s=5)
    assert set(listed.statuses) == {"", SERVICE}
    with pytest.raises(errors.NotFound):
        await call(health.Check, health_pb2.HealthCheckRequest(service="unknown"), timeout_s=5)


async def test_health_watch_tells_every_change_and_the_drain(script: Script) -> None:
    script.stream = Endless()
    async with serving(script) as served, asyncio.TaskGroup() as group:
        health = make_stub(health_pb2_grpc.HealthStub, served.methods.channel)
        async with (
            open_stream(health.Watch, NOTHING, timeout_s=5) as states,
            open_stream(served.methods.stream, REQUEST, timeout_s=5) as events,
        ):
            assert (await anext(states)).status == _Status.SERVING
            served.server.set_serving(False)
            assert (await anext(states)).status == _Status.NOT_SERVING
            served.server.set_serving(True)
            assert (await anext(states)).status == _Status.SERVING
            await anext(events)
            stopping = group.create_task(served.server.stop(grace_s=0.2))
            assert (await anext(states)).status == _Status.NOT_SERVING
            with pytest.raises(errors.Unavailable):
                await anext(states)
        await stopping


async def test_a_watcher_who_does_not_read_does_not_hold_up_the_state(served: Serving) -> None:
    health = make_stub(health_pb2_grpc.HealthStub, served.methods.channel)
    async with open_stream(health.Watch, NOTHING, timeout_s=5):
        for serving_now in (False, True) * 100:
            served.server.set_serving(serving_now)
        served.server.set_serving(False)
        assert (await call(health.Check, NOTHING, timeout_s=5)).status == _Status.NOT_SERVING


async def test_health_says_not_serving_until_told() -> None:
    server = RpcServer(name="fresh", bind="127.0.0.1:0", authenticator=BearerAuth(None))
    async with open_channel(await server.start()) as channel:
        health = make_stub(health_pb2_grpc.HealthStub, channel)
        assert (await call(health.Check, NOTHING, timeout_s=5)).status == _Status.NOT_SERVING
        await server.stop(0)


async def test_a_port_that_is_taken_is_refused_with_its_holder_and_a_free_one(served: Serving) -> None:
    port = served.address.rpartition(":")[2]
    second = RpcServer(name="second", bind=served.address, authenticator=BearerAuth(None))
    with pytest.raises(PortTaken, match=rf"port {port} is taken by .*pid \d+.*--bind 127\.0\.0\.1:\d+"):
        await second.start()
    await second.stop(0)


async def test_a_port_that_is_taken_meanwhile_is_refused_too(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    really_ensure_free = ports.ensure_free
    looks = 0

    def free_at_first(host: str, port: int) -> None:
        nonlocal looks
        looks += 1
        if looks > 1:
            really_ensure_free(host, port)

    monkeypatch.setattr("llorch.ports.ensure_free", free_at_first)
    second = RpcServer(name="second", bind=served.address, authenticator=BearerAuth(None))
    with pytest.raises(PortTaken):
        await second.start()
    await second.stop(0)


async def test_localhost_is_one_address(script: Script) -> None:
    server = RpcServer(name="local", bind="localhost:0", authenticator=BearerAuth(None))
    assert (await server.start()).startswith("127.0.0.1:")
    await server.stop(0)


async def test_a_generator_is_no_handler() -> None:
    class Generator(Script):
        async def answer_stream(self, request: Any, context: Any) -> Any:
            yield request

    server = RpcServer(name="wrong", bind="127.0.0.1:0", authenticator=BearerAuth(None))
    with pytest.raises(TypeError, match=r"/test.Scripted/Stream has to be a coroutine"):
        server.add(SERVICE, add_to_server, Generator())
    await server.stop(0)


async def test_calls_are_bounded_and_streams_do_not_count(script: Script) -> None:
    finish = asyncio.Event()
    started = asyncio.Event()

    async def handler(request: Any, _context: Any) -> Any:
        started.set()
        await finish.wait()
        return request

    script.unary = handler
    script.stream = Endless(cleanup_s=0)
    async with serving(script, max_calls=1) as served, asyncio.TaskGroup() as group:
        first = group.create_task(call(served.methods.unary, REQUEST, timeout_s=5))
        await started.wait()
        with pytest.raises(errors.ResourceExhausted) as caught:
            await call(served.methods.unary, REQUEST, timeout_s=5)
        assert caught.value.reason is Reason.TOO_MANY_CALLS
        async with open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
            await anext(events)
        finish.set()
        await first


async def test_reflection_lists_the_services(served: Serving) -> None:
    reflect = make_stub(reflection_pb2_grpc.ServerReflectionStub, served.methods.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    async with DuplexCall[Any, Any](reflect.ServerReflectionInfo, timeout_s=5) as exchange:
        await exchange.send(question)
        answer = await anext(aiter(exchange))
        assert SERVICE in {service.name for service in answer.list_services_response.service}
        await exchange.close()
        assert [rest async for rest in exchange] == []


def test_everything_works_on_uvloop() -> None:
    import uvloop

    async def scenario() -> None:
        script = Script()
        handler = script.stream = Endless()

        async def echo(request: Any, _context: Any) -> Any:
            return request

        script.unary = echo
        async with serving(script) as served:
            assert (await call(served.methods.unary, REQUEST, timeout_s=5)).value == "x"
            async with open_stream(served.methods.stream, REQUEST, timeout_s=5, idle_timeout_s=0.1) as events:
                await anext(events)
                with pytest.raises(errors.DeadlineExceeded):
                    await anext(events)
            await handler.ended.wait()
            async with open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
                await anext(events)
                await served.server.stop(0)
                with pytest.raises(errors.Unavailable):
                    await anext(events)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_codes_of_grpc_are_all_known() -> None:
    assert {code.name for code in grpc.StatusCode} >= {leaf.code for leaf in errors.LlorchError.__subclasses__()}
