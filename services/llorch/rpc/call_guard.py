"""What stands around every handler: identity, correlation id, errors, cancellation, and who is running.

Handlers are wrapped once, when they are registered, rather than by a server interceptor that would build its chain
anew for every call. The cost is per call; writing to a stream passes nothing of this.
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc

from llorch.auth import Authenticator
from llorch.errors import Internal, InvalidArgument, LlorchError, Reason, ResourceExhausted, Unavailable
from llorch.identifiers import new_id
from llorch.logs import get_logger
from llorch.rpc import status
from llorch.rpc.call_context import CORRELATION_ID, CallInfo, enter_call

Handler = Callable[[Any, Any], Awaitable[Any]]

_CORRELATION = re.compile(r"[\x21-\x7e]{1,128}")
_RETRY_WHEN_BUSY_MS = 100
_RETRY_WHEN_DRAINING_MS = 1000
# A status waits behind messages that the peer does not read; after this the handler ends without it.
_STATUS_WITHIN_S = 2.0


class CallGuard:
    """Wraps the handlers of one server and knows which of them are running."""

    def __init__(self, name: str, authenticator: Authenticator, max_calls: int) -> None:
        self._log = get_logger(name)
        self._authenticator = authenticator
        self._max_calls = max_calls
        self._calls: set[asyncio.Task[Any]] = set()
        self._streams: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._cancelled_by_us: set[asyncio.Task[Any]] = set()
        self._draining = False

    def wrap(self, method: str, handler: Any, *, background: bool = False) -> Any:
        """The same method handler, guarded.

        `background` methods (health, reflection) are served while draining, and nobody waits for them to end.
        """
        kind = ("stream_" if handler.request_streaming else "unary_") + (
            "stream" if handler.response_streaming else "unary"
        )
        behaviour = getattr(handler, kind)
        if not inspect.iscoroutinefunction(behaviour):
            raise TypeError(f"{method} has to be a coroutine (async def without yield)")
        running = self._background if background else self._streams if "stream" in kind else self._calls
        # Decoding and encoding happen inside of the guard, so that their errors are treated like all others.
        decode, encode = _decoder(handler.request_deserializer), handler.response_serializer
        guarded = self._guarded(
            method,
            behaviour,
            running,
            decode=None if handler.request_streaming else decode,
            encode=None if handler.response_streaming else encode,
        )
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            guarded,
            request_deserializer=decode if handler.request_streaming else None,
            response_serializer=encode if handler.response_streaming else None,
        )

    def start_draining(self) -> None:
        """From now on new calls are refused."""
        self._draining = True

    async def wait_ended(self, timeout_s: float) -> bool:
        """Waits until no handler runs; False if some still did when the time was over."""
        running = self._calls | self._streams
        if running:
            await asyncio.wait(running, timeout=timeout_s)
        return not (self._calls or self._streams)

    async def cancel_all(self, timeout_s: float) -> None:
        """Cancels what still runs, tells its clients, and waits for the `finally` blocks."""
        running = self._calls | self._streams | self._background
        self._cancelled_by_us |= running
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=timeout_s)
        for task in self._calls | self._streams | self._background:
            self._log.warning("handler_did_not_end", task=task.get_name())

    def _guarded(
        self,
        method: str,
        behaviour: Handler,
        running: set[asyncio.Task[Any]],
        *,
        decode: Callable[[bytes], Any] | None,
        encode: Callable[[Any], bytes] | None,
    ) -> Handler:
        async def guarded(request: Any, context: Any) -> Any:
            task = _this_task()
            try:
                self._admit(running, context)
                running.add(task)
                response = await behaviour(decode(request) if decode else request, context)
                if task.cancelling():
                    # The handler kept its cancellation to itself; a normal return would leak the call.
                    raise asyncio.CancelledError
                return encode(response) if encode else response
            except (Exception, asyncio.CancelledError) as error:
                await self._end_with(error, method, task, context)
            finally:
                running.discard(task)
                self._cancelled_by_us.discard(task)

        return guarded

    def _admit(self, running: set[asyncio.Task[Any]], context: Any) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        peer = context.peer()
        shown_id = metadata.get(CORRELATION_ID, "")
        correlation_id = shown_id if _CORRELATION.fullmatch(shown_id) else new_id("cor")
        call = CallInfo(correlation_id, "", peer, context.time_remaining())
        enter_call(call)
        call.identity = self._authenticator.authenticate(metadata, peer).name
        if self._draining and running is not self._background:
            raise _draining()
        if running is self._calls and len(running) >= self._max_calls:
            raise ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                f"this server has {self._max_calls} calls to answer already",
                retry_after_ms=_RETRY_WHEN_BUSY_MS,
            )

    async def _end_with(
        self, error: BaseException, method: str, task: asyncio.Task[Any], context: Any
    ) -> NoReturn:
        """Ends the call with the status that the error stands for."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, asyncio.CancelledError):
            if task in self._cancelled_by_us:
                await _abort(context, _draining())
            if task.cancelling():
                # The client went away, or its deadline passed: nobody is there to be told.
                raise error
        if isinstance(error, LlorchError) and not isinstance(error, Internal):
            await _abort(context, error)
        await _abort(context, self._internal(error, method))

    def _internal(self, error: BaseException, method: str) -> Internal:
        """Logs what happened under an id, and makes the error that tells the client nothing but the id."""
        error_id = new_id("err")
        self._log.error("handler_failed", method=method, error_id=error_id, exc_info=error)
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
    except TimeoutError:
        pass
    # grpc takes this as the end of a call whose peer is gone.
    raise asyncio.CancelledError


def _draining() -> Unavailable:
    return Unavailable(
        Reason.DRAINING,
        "this server is shutting down and takes nothing new; try again, or elsewhere",
        retry_after_ms=_RETRY_WHEN_DRAINING_MS,
    )


def _decoder(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if decode is None:
        return None

    def decode_or_refuse(raw: bytes) -> Any:
        try:
            return decode(raw)
        except Exception as error:
            raise InvalidArgument(
                Reason.MALFORMED_REQUEST, "the request is not a valid encoding of this method's message"
            ) from error

    return decode_or_refuse


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a handler runs in a task")
    return task
