"""A server-streaming RPC as server-sent events, until the client, the orchestrator or the gateway ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from gatewayd import sse
from gatewayd.exchange import Exchange
from gatewayd.upstream import Responses
from llorch.errors import Internal, LlorchError, Reason, Unavailable
from llorch.logs import get_logger
from llorch.rpc.status import has_broken

KEEP_ALIVE_EVERY_S = 15.0
# An error before the first event is an HTTP status. A stream without events begins after this time all the same.
FIRST_EVENT_WITHIN_S = 5.0
_RETRY_WHEN_DRAINING_MS = 1000
_RETRY_WHEN_LOST_MS = 1000

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
_log = get_logger("gatewayd")


class Frames(Protocol):
    """How the messages of a stream are written; `gatewayd.sse` is how /v2 does it."""

    def encode_response(self, response: Any) -> bytes:
        """Empty where there is nothing to show. Raises LlorchError where the stream is to end with it."""
        ...

    def encode_error(self, error: LlorchError) -> bytes:
        """The last frame of a stream that ends with this error."""
        ...

    def may_begin_with(self, error: LlorchError) -> bool:
        """Whether the stream tells it, though nothing was sent before; else it is an HTTP status."""
        ...


class EventStream:
    """The streams of one gateway. `draining` ends them all, those that are collected for one answer `collects_for_s`
    later.
    """

    def __init__(self, draining: asyncio.Event, collects_for_s: float) -> None:
        self._draining = draining
        self._collects_for_s = collects_for_s
        self._opening: set[asyncio.Timeout] = set()
        self._open: set[Responses] = set()
        self._collected: set[Responses] = set()

    async def end_when_draining(self) -> None:
        """To be run beside the streams."""
        await self._draining.wait()
        for opening in self._opening:
            opening.reschedule(0)
        for incoming in self._open:
            incoming.end(_draining())
        await asyncio.sleep(self._collects_for_s)
        for incoming in self._collected:
            incoming.end(_draining())

    @asynccontextmanager
    async def collect(self, stream: AbstractAsyncContextManager[Responses]) -> AsyncIterator[Responses]:
        """A stream that is shown to no client, but becomes one answer."""
        async with stream as responses:
            self._collected.add(responses)
            try:
                yield responses
            finally:
                self._collected.discard(responses)

    async def relay(
        self,
        exchange: Exchange,
        stream: AbstractAsyncContextManager[Responses],
        frames: Frames = sse,
    ) -> None:
        """Raises LlorchError as long as nothing was sent; after that the stream ends with the error."""
        pulse = _Pulse(exchange)
        exchange.probe_with(sse.KEEP_ALIVE)
        try:
            async with AsyncExitStack() as stack:
                responses = await self._enter(stack, stream)
                self._open.add(responses)
                if self._draining.is_set():  # it was opened in the same moment, or without a wait
                    responses.end(_draining())
                try:
                    await _copy(responses, exchange, frames, pulse)
                finally:
                    self._open.discard(responses)
        except LlorchError as error:
            shown = _in_words_of_the_client(error)
            if not exchange.started and not frames.may_begin_with(shown):
                raise shown from None
            pulse.begin()
            exchange.write(frames.encode_error(shown))
        finally:
            pulse.stop()
        pulse.begin()
        exchange.end()

    async def _enter(self, stack: AsyncExitStack, stream: AbstractAsyncContextManager[Responses]) -> Responses:
        """Raises Unavailable when the gateway ends meanwhile, or has begun to."""
        try:
            async with asyncio.timeout(0 if self._draining.is_set() else None) as opening:
                self._opening.add(opening)
                try:
                    return await stack.enter_async_context(stream)
                finally:
                    self._opening.discard(opening)
        except TimeoutError:
            raise _draining() from None


def answer_with(exchange: Exchange, error: LlorchError, frames: Frames) -> None:
    """A stream that has nothing but its end to tell."""
    exchange.start(200, _HEADERS)
    exchange.write(frames.encode_error(error))
    exchange.end()


class _Pulse:
    """Begins a stream that has nothing to say yet, and shows that it lives while it has not."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._wrote = False
        self._timer = self._loop.call_later(FIRST_EVENT_WITHIN_S, self._beat)

    def begin(self) -> None:
        if not self._exchange.started:
            self._exchange.start(200, _HEADERS)

    def write(self, frame: bytes) -> None:
        self.begin()
        self._wrote = True
        self._exchange.write(frame)

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        self.begin()
        if not self._wrote and not self._exchange.is_backed_up:
            self._exchange.write(sse.KEEP_ALIVE)
        self._wrote = False
        self._timer = self._loop.call_later(KEEP_ALIVE_EVERY_S, self._beat)


async def _copy(responses: Responses, exchange: Exchange, frames: Frames, pulse: _Pulse) -> None:
    """While the client lags nothing is read, and the orchestrator keeps what follows, to send it in one message."""
    async for response in responses:
        try:
            frame = frames.encode_response(response)
        except LlorchError:
            raise
        except Exception as error:
            _log.error("stream_failed", exc_info=error)
            raise Internal(Reason.INTERNAL, "an internal error ended this stream; the gateway's log has it") from error
        if frame:
            pulse.write(frame)
            await exchange.wait_taken()


def _draining() -> Unavailable:
    return Unavailable(
        Reason.DRAINING,
        "this gateway is shutting down, and this stream ends with it; ask for it again",
        retry_after_ms=_RETRY_WHEN_DRAINING_MS,
    )


def _in_words_of_the_client(error: LlorchError) -> LlorchError:
    """The library's own words are about a server that the client does not know of."""
    if not isinstance(error, Unavailable) or not has_broken(error):
        return error
    return Unavailable(
        error.reason,
        "the gateway has no connection to the orchestrator any more, and so this stream ends; ask for it again",
        retry_after_ms=_RETRY_WHEN_LOST_MS,
    )
