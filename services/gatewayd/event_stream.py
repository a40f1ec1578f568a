"""A server-streaming RPC as server-sent events, until the client, the orchestrator or the gateway ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from gatewayd import sse
from gatewayd.exchange import Exchange
from gatewayd.outbox import Outbox
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
    """The streams of one gateway. `draining` ends them all."""

    def __init__(self, draining: asyncio.Event) -> None:
        self._draining = draining

    async def relay(
        self,
        exchange: Exchange,
        stream: AbstractAsyncContextManager[AsyncIterator[Any]],
        frames: Frames = sse,
    ) -> None:
        """Raises LlorchError as long as nothing was sent; after that the stream ends with the error."""
        outbox = Outbox()
        async with stream as responses, asyncio.TaskGroup() as tasks:
            watchers = [
                tasks.create_task(_read(responses, outbox, frames), name="read the orchestrator's stream"),
                tasks.create_task(_end_when_gone(exchange, outbox), name="watch for the client's leaving"),
                tasks.create_task(self._end_when_draining(outbox), name="watch for the gateway's end"),
            ]
            try:
                await self._write(exchange, outbox, frames)
            finally:
                for watcher in watchers:
                    watcher.cancel()
        if outbox.error is not None and not exchange.started:
            raise outbox.error

    async def _write(self, exchange: Exchange, outbox: Outbox, frames: Frames) -> None:
        await outbox.wait_ready(FIRST_EVENT_WITHIN_S)
        if exchange.is_gone or (outbox.is_over and outbox.error and not frames.may_begin_with(outbox.error)):
            return
        await exchange.start(200, _HEADERS)
        while not (outbox.is_over or exchange.is_gone):
            ready = await outbox.wait_ready(KEEP_ALIVE_EVERY_S)
            await exchange.write(outbox.take() if ready else sse.KEEP_ALIVE)
        if outbox.error is not None:
            await exchange.write(frames.encode_error(outbox.error))
        await exchange.end()

    async def _end_when_draining(self, outbox: Outbox) -> None:
        await self._draining.wait()
        outbox.end(
            Unavailable(
                Reason.DRAINING,
                "this gateway is shutting down, and this stream ends with it; ask for it again",
                retry_after_ms=_RETRY_WHEN_DRAINING_MS,
            )
        )


async def answer_with(exchange: Exchange, error: LlorchError, frames: Frames) -> None:
    """A stream that has nothing but its end to tell."""
    await exchange.start(200, _HEADERS)
    await exchange.write(frames.encode_error(error))
    await exchange.end()


async def _end_when_gone(exchange: Exchange, outbox: Outbox) -> None:
    await exchange.wait_gone()
    outbox.end()


async def _read(responses: AsyncIterator[Any], outbox: Outbox, frames: Frames) -> None:
    try:
        async for response in responses:
            frame = frames.encode_response(response)
            if frame:
                await outbox.put(frame)
    except LlorchError as error:
        outbox.end(_in_words_of_the_client(error))
    except Exception as error:  # noqa: BLE001  # a stream never ends without a word
        _log.error("stream_failed", exc_info=error)
        outbox.end(Internal(Reason.INTERNAL, "an internal error ended this stream; the gateway's log has it"))
    else:
        outbox.end()


def _in_words_of_the_client(error: LlorchError) -> LlorchError:
    """The library's own words are about a server that the client does not know of."""
    if not isinstance(error, Unavailable) or not has_broken(error):
        return error
    return Unavailable(
        error.reason,
        "the gateway has no connection to the orchestrator any more, and so this stream ends; ask for it again",
        retry_after_ms=_RETRY_WHEN_LOST_MS,
    )
