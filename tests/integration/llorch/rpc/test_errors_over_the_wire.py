"""What a handler raises, and what its client gets."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc
from structlog.testing import capture_logs

from llorch import errors
from llorch.auth import BearerAuth
from llorch.errors import FieldViolation, LlorchError, Reason
from llorch.rpc.client import call, open_channel, open_stream
from llorch.rpc.server import RpcServer
from llorch.rpc.status import DETAILS_KEY, error_from_rpc
from support.free_ports import free_port
from support.scripted_service import Script, Serving

LEAVES = LlorchError.__subclasses__()
REQUEST = StringValue(value="x")


def raising(error: BaseException) -> Any:
    async def handler(_request: Any, _context: Any) -> None:
        raise error

    return handler


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf is not errors.Internal])
async def test_a_leaf_reaches_the_client_as_the_same_leaf(
    leaf: type[LlorchError], script: Script, served: Serving
) -> None:
    script.unary = raising(
        leaf(
            Reason.QUEUE_FULL,
            "the queue of batch is full",
            violations=(FieldViolation("generate.max_tokens", "has to be at least 1"),),
            retry_after_ms=1500,
            metadata={"model": "coder"},
        )
    )
    with pytest.raises(leaf) as caught:
        await call(served.methods.unary, REQUEST, timeout_s=5)
    error = caught.value
    assert error.reason is Reason.QUEUE_FULL
    assert error.message == "the queue of batch is full"
    assert error.violations == (FieldViolation("generate.max_tokens", "has to be at least 1"),)
    assert error.retry_after_ms == 1500
    assert error.metadata == {"model": "coder"}


async def test_a_refusal_carries_exactly_one_error_info(script: Script, served: Serving) -> None:
    script.unary = raising(errors.invalid_field("prompt", "may not be empty"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.methods.unary(REQUEST, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailing = caught.value.trailing_metadata()
    assert trailing is not None
    details = trailing[DETAILS_KEY]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [detail.TypeName() for detail in status.details] == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "llama-orch")


async def test_a_long_error_still_arrives(script: Script, served: Serving) -> None:
    violations = tuple(FieldViolation("ü" * 5000, "ß" * 5000) for _ in range(100))
    error = errors.InvalidArgument(Reason.INVALID_FIELD, "ä" * 100_000, violations=violations)
    script.unary = raising(error)
    with pytest.raises(errors.InvalidArgument, match=r"ä{100}"):
        await call(served.methods.unary, REQUEST, timeout_s=5)


async def test_an_unexpected_exception_is_internal_and_tells_an_id_only(script: Script, served: Serving) -> None:
    script.unary = raising(KeyError("/secret/path"))
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.methods.unary(REQUEST, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)
    assert "KeyError" not in str(caught.value)
    error_id = error_from_rpc(caught.value).metadata["error_id"]
    assert error_id in (caught.value.details() or "")
    assert [line["error_id"] for line in logs if line["event"] == "handler_failed"] == [error_id]


async def test_an_internal_error_raised_on_purpose_tells_no_text_either(script: Script, served: Serving) -> None:
    script.unary = raising(errors.Internal(Reason.INTERNAL, "the table of /secret is broken"))
    with pytest.raises(errors.Internal) as caught:
        await call(served.methods.unary, REQUEST, timeout_s=5)
    assert "secret" not in caught.value.message


async def test_a_failure_that_has_a_reason_of_its_own_is_told_with_it(script: Script, served: Serving) -> None:
    """What a task failed with, for example; and what a daemon of a newer release refused for a reason unknown here."""
    for error in (
        errors.Internal(Reason.ENGINE_FAILED, "the engine failed with code -3"),
        errors.InvalidArgument(Reason.INTERNAL, "prompt: is too odd; send a shorter one"),
    ):
        script.unary = raising(error)
        with pytest.raises(type(error)) as caught:
            await call(served.methods.unary, REQUEST, timeout_s=5)
        assert (caught.value.reason, caught.value.message) == (error.reason, error.message)


async def test_a_cancelled_error_of_the_handlers_own_is_answered(script: Script, served: Serving) -> None:
    script.unary = raising(asyncio.CancelledError())
    with pytest.raises(errors.Internal):
        await call(served.methods.unary, REQUEST, timeout_s=5)


async def test_a_cancelled_error_in_a_stream_is_answered(script: Script, served: Serving) -> None:
    async def handler(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        inner = asyncio.ensure_future(asyncio.sleep(60))
        inner.cancel()
        await inner

    script.stream = handler
    async with open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
        assert (await anext(events)).value == "x"
        with pytest.raises(errors.Internal):
            await anext(events)


async def test_an_error_inside_of_a_task_group_is_the_calls_error(script: Script, served: Serving) -> None:
    async def handler(_request: Any, _context: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(raising(errors.NotFound(Reason.TASK_NOT_FOUND, "no such task"))(None, None))

    script.stream = handler
    async with open_stream(served.methods.stream, REQUEST, timeout_s=5) as events:
        with pytest.raises(errors.NotFound, match="no such task"):
            await anext(events)


async def test_an_abort_of_the_handler_goes_through_unchanged(script: Script, served: Serving) -> None:
    async def handler(_request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.DATA_LOSS, "on purpose")

    script.unary = handler
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.methods.unary(REQUEST, timeout=5)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS


async def test_a_request_that_is_no_message_is_malformed(served: Serving) -> None:
    raw: Any = served.methods.channel.unary_unary("/test.Scripted/Unary")
    with pytest.raises(errors.InvalidArgument) as caught:
        await call(raw, b"\xff\xff\xff", timeout_s=5)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


async def test_a_bad_message_inside_of_a_request_stream_is_malformed(script: Script, served: Serving) -> None:
    async def handler(requests: Any, _context: Any) -> None:
        async for _ in requests:
            pass

    script.duplex = handler
    method: Any = served.methods.channel.stream_stream("/test.Scripted/Duplex")
    rpc = method(iter([b"\xff\xff\xff"]), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.read()
    assert error_from_rpc(caught.value).reason is Reason.MALFORMED_REQUEST


async def test_a_response_of_the_wrong_type_is_internal(script: Script, served: Serving) -> None:
    async def handler(_request: Any, _context: Any) -> str:
        return "not a message"

    script.unary = handler
    with pytest.raises(errors.Internal):
        await call(served.methods.unary, REQUEST, timeout_s=5)


async def test_an_unknown_method_is_refused_with_a_reason(served: Serving) -> None:
    raw: Any = served.methods.channel.unary_unary("/test.Scripted/Nothing")
    with pytest.raises(errors.Unimplemented) as caught:
        await call(raw, b"", timeout_s=5)
    assert "reflection" in caught.value.message


async def test_a_method_left_to_the_generated_base_is_refused_with_a_reason() -> None:
    server = RpcServer(name="empty", bind="127.0.0.1:0", authenticator=BearerAuth(None))
    server.add("grpc.health.v1.Health", health_pb2_grpc.add_HealthServicer_to_server, health_pb2_grpc.HealthServicer())
    async with open_channel(await server.start()) as channel:
        method: Any = channel.unary_unary("/grpc.health.v1.Health/List")
        with pytest.raises(errors.Unimplemented) as caught:
            await call(method, b"", timeout_s=5)
        assert caught.value.reason is Reason.NOT_IMPLEMENTED
        await server.stop(0)


async def test_a_message_that_is_too_large_is_named_as_such(served: Serving) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await call(served.methods.unary, StringValue(value="x" * 17 * 1024 * 1024), timeout_s=5)
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE


async def test_a_server_that_is_not_there_is_unavailable_and_names_no_address() -> None:
    async with open_channel(f"127.0.0.1:{free_port()}") as channel:
        method: Any = channel.unary_unary("/test.Scripted/Unary")
        with pytest.raises(errors.Unavailable) as caught:
            await call(method, b"", timeout_s=5)
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
    assert "127.0.0.1" not in caught.value.message


async def test_a_deadline_is_kept_and_named(script: Script, served: Serving) -> None:
    async def handler(_request: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    script.unary = handler
    with pytest.raises(errors.DeadlineExceeded):
        await call(served.methods.unary, REQUEST, timeout_s=0.05)
