"""The wrapper of every handler: identity, correlation id, errors, cancellation, and the set of running handlers.

Handlers are wrapped once, when they are registered, rather than by a server interceptor, which would build
its chain anew for every call. The cost is per call; messages of a stream do not pass through it.
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import grpc

from llorch.auth import CLIENT_CLASS, LOCALHOST, Authenticator, Identity, bearer_token, is_of_this_machine
from llorch.errors import (
    Internal,
    InvalidArgument,
    LlorchError,
    PermissionDenied,
    Reason,
    Unavailable,
    Unimplemented,
)
from llorch.exception_groups import root_of
from llorch.identifiers import new_id
from llorch.logs import get_logger
from llorch.rpc import status
from llorch.rpc.awaited_requests import AwaitedRequests
from llorch.rpc.call_context import CORRELATION_ID, CallInfo, enter_call
from llorch.rpc.places import Places, Tasks
from llorch.rpc.request_limit import RequestLimit

Handler = Callable[[Any, Any], Awaitable[Any]]

_CORRELATION = re.compile(r"[\x21-\x7e]{1,128}")
_RETRY_WHEN_DRAINING_MS = 1000
# Refusals that cost nothing to ask for are sent after this time, in seconds. A caller that has left by then gets none,
# since grpc.aio does not free a status that it can't send. And a caller that asks for too much, again and again, is
# slowed.
_SENT_AFTER_S = {
    Reason.TOKEN_MISSING: 0.005,
    Reason.TOKEN_INVALID: 0.005,
    Reason.MALFORMED_REQUEST: 0.005,
    Reason.TOO_MANY_CALLS: 0.01,
}
# Watchers of health, and callers that ask by reflection what there is.
_MOST_PROBES = 256
_MOST_AWAITED = 1024
# A status waits behind messages that the peer does not read; no handler waits longer than this for it to go.
_STATUS_WITHIN_S = 1.0


class CallGuard:
    """Wraps the handlers of one server and knows which of them are running.

    `max_calls` bounds the unary calls that are served at once, `max_streams` all others. A call with one request counts
    from when that is there.
    """

    def __init__(
        self,
        name: str,
        authenticator: Authenticator,
        *,
        max_calls: int,
        max_streams: int,
        open_to_probes: bool = False,
    ) -> None:
        self._open_to_probes = open_to_probes
        self._log = get_logger(name)
        self._authenticator = authenticator
        self._calls = Places("calls", max_calls)
        self._streams = Places("streams", max_streams)
        self._probes = Places("probes", _MOST_PROBES)
        self._awaited = AwaitedRequests(_MOST_AWAITED, _abort)
        self._cancelled_by_us: Tasks = set()
        self._draining = False

    def wrap(self, method: str, handler: Any, *, is_probe: bool = False, limit: RequestLimit | None = None) -> Any:
        """The same method handler, guarded.

        Probes (health, reflection) are served while draining too, and no drain waits for their end. `limit` holds for
        each message that comes.
        """
        kind = _kind_of(handler)
        behaviour = getattr(handler, kind)
        if _is_generated(behaviour):
            behaviour = _refuse_not_implemented
        if not inspect.iscoroutinefunction(behaviour):
            raise TypeError(f"{method} has to be a coroutine (async def, and no yield in it)")
        places = self._probes if is_probe else self._calls if kind == "unary_unary" else self._streams
        # Single messages are decoded and encoded in here, so that errors in them are treated like all others.
        decode, encode = _refusing(handler.request_deserializer, limit), handler.response_serializer
        guarded = self._guarded(
            method,
            behaviour,
            places,
            decode=None if handler.request_streaming else decode,
            encode=_unchanged if handler.response_streaming else encode,
        )
        # To the library every request is a stream, of which it reads nothing by itself: who may not call is refused
        # before the request is in memory, and one that does not come is given up.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(
            guarded,
            request_deserializer=decode if handler.request_streaming else None,
            response_serializer=_encoding(encode) if handler.response_streaming else None,
        )

    def start_draining(self) -> None:
        """From now on new calls are refused."""
        self._draining = True

    async def wait_ended(self, timeout_s: float) -> bool:
        """Waits until no handler runs; False if some still did when the time was over."""
        running = self._calls.running | self._streams.running
        if not running:
            return True
        _, still_running = await asyncio.wait(running, timeout=timeout_s)
        return not still_running

    async def cancel_all(self, timeout_s: float) -> None:
        """Cancels what still runs, tells its clients, and waits for the `finally` blocks."""
        running = self._calls.running | self._streams.running | self._probes.running
        self._cancelled_by_us |= running
        for task in running:
            task.cancel()
        running |= self._awaited.give_up_all(_draining())
        if not running:
            return
        _, still_running = await asyncio.wait(running, timeout=timeout_s)
        for task in still_running:
            self._log.warning("handler_did_not_end", task=task.get_name(), waited_s=timeout_s)

    def _guarded(
        self,
        method: str,
        behaviour: Handler,
        places: Places,
        *,
        decode: Callable[[Any], Any] | None,
        encode: Callable[[Any], Any],
    ) -> Handler:
        async def guarded(requests: Any, context: Any) -> Any:
            task = _this_task()
            try:
                self._admit(method, places, context)
                raw = requests if decode is None else await self._awaited.read(context)
                self._refuse_while_draining(places)
                places.take(task)
                return encode(await behaviour(raw if decode is None else decode(raw), context))
            except (Exception, asyncio.CancelledError) as error:  # every one ends the call
                await self._end_with(error, method, task, context)
                raise
            finally:
                places.leave(task)
                self._cancelled_by_us.discard(task)

        return guarded

    def _admit(self, method: str, places: Places, context: Any) -> None:
        """Identifies the caller, and refuses calls that may not or can't be served."""
        peer = context.peer()
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        shown_id = metadata.get(CORRELATION_ID, "")
        call = CallInfo(
            correlation_id=shown_id if _CORRELATION.fullmatch(shown_id) else new_id("cor"),
            identity="",
            peer=peer,
            deadline_s=context.time_remaining(),
            comes_by_gateway=CLIENT_CLASS in metadata,
        )
        enter_call(call)
        identity = self._identify(metadata, peer, is_probe=places is self._probes)
        call.identity, call.app = identity.name, identity.app
        if places is self._probes:
            return
        if not identity.may_call(method):
            raise _not_permitted(identity, method)
        self._refuse_while_draining(places)

    def _refuse_while_draining(self, places: Places) -> None:
        if self._draining and places is not self._probes:
            raise _draining()

    def _identify(self, metadata: Mapping[str, str], peer: str, *, is_probe: bool) -> Identity:
        """What probes a server of this machine may have no token, and learns no secret."""
        if is_probe and self._open_to_probes and bearer_token(metadata) is None and is_of_this_machine(metadata, peer):
            return LOCALHOST
        return self._authenticator.authenticate(metadata, peer)

    async def _end_with(self, raised: BaseException, method: str, task: asyncio.Task[Any], context: Any) -> None:
        """Ends the call with the status that an exception stands for. Returns where no client is left to take one; not
        from here, since this frame would hold its own traceback.
        """
        error = root_of(raised)
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, asyncio.CancelledError):
            if task in self._cancelled_by_us:
                await _abort(context, _draining())
            if task.cancelling():
                # The client went away, or its deadline passed. grpc.aio would never free a status that no client takes.
                return
        if isinstance(error, LlorchError) and error.reason in _SENT_AFTER_S:
            await asyncio.sleep(_SENT_AFTER_S[error.reason])
        if isinstance(error, LlorchError) and not (isinstance(error, Internal) and error.reason is Reason.INTERNAL):
            await _abort(context, error)
        await _abort(context, self._internal(raised, method))

    def _internal(self, raised: BaseException, method: str) -> Internal:
        """Logs what happened under an id, and makes the error that tells the client nothing but the id."""
        error_id = new_id("err")
        # A batch of operations fails where the connection broke, which is no error of this server.
        log = self._log.debug if isinstance(raised, grpc.aio.InternalError) else self._log.error
        log("handler_failed", method=method, error_id=error_id, exc_info=raised)
        return Internal(
            Reason.INTERNAL,
            f"an internal error occurred; the log of this server has the details under {error_id}",
            metadata={"error_id": error_id},
        )


async def _abort(context: Any, error: LlorchError) -> NoReturn:
    details = ((status.DETAILS_KEY, status.status_details(error)),)
    try:
        async with asyncio.timeout(_STATUS_WITHIN_S):
            await context.abort(status.status_code(error), status.status_message(error), details)
    except grpc.aio.AbortError:
        raise
    except (TimeoutError, grpc.aio.BaseError):
        # The peer does not read, or is gone. To the library this is a call that its client cancelled.
        raise asyncio.CancelledError from None
    raise AssertionError("abort always raises")


def _is_generated(behaviour: Any) -> bool:
    """Whether the servicer has left this method to the generated base class."""
    return str(behaviour.__module__).endswith("_pb2_grpc")


async def _refuse_not_implemented(_request: Any, _context: Any) -> NoReturn:
    raise Unimplemented(Reason.NOT_IMPLEMENTED, "this release does not do this yet; the contract only names it")


def _draining() -> Unavailable:
    return Unavailable(
        Reason.DRAINING,
        "this server is shutting down and takes nothing new; try again, or elsewhere",
        retry_after_ms=_RETRY_WHEN_DRAINING_MS,
    )


def _not_permitted(identity: Identity, method: str) -> PermissionDenied:
    name = method.rpartition(".")[2]
    return PermissionDenied(Reason.NOT_PERMITTED, f"{identity.name} may not call {name}; {identity.otherwise}")


def _refusing(decode: Any, limit: RequestLimit | None) -> Callable[[bytes], Any]:
    """`decode` is the method `FromString` of a generated class."""

    def decode_or_refuse(raw: bytes) -> Any:
        if limit is not None:
            limit.check(raw, decode.__self__.DESCRIPTOR)
        try:
            return decode(raw)
        except Exception as error:
            raise InvalidArgument(
                Reason.MALFORMED_REQUEST, "the request is not a valid encoding of this method's message"
            ) from error

    return decode_or_refuse


def _encoding(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A handler whose clients are all told the same may encode it once."""

    def encode_unless_bytes(message: Any) -> bytes:
        return message if type(message) is bytes else encode(message)

    return encode_unless_bytes


def _unchanged(message: Any) -> Any:
    return message


def _kind_of(handler: Any) -> str:
    request = "stream" if handler.request_streaming else "unary"
    response = "stream" if handler.response_streaming else "unary"
    return f"{request}_{response}"


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a handler runs in a task")
    return task
