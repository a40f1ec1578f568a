"""Reading what a client sent, within the limits of this gateway."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from gatewayd.exchange import Exchange
from gatewayd.json_size import check_values

T = TypeVar("T")

# What takes longer to read than the streams can wait goes to a thread.
_LARGE_BYTES = 16 * 1024


class BodyReader:
    """Large bodies are read one at a time: every thread that computes makes the event loop wait for its turn."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._turn = asyncio.Semaphore(1)

    async def read(self, exchange: Exchange, build: Callable[[bytes], T]) -> T:
        """What `build` makes of the body."""
        body = await exchange.read_body(self._max_bytes, self._timeout_s)
        if len(body) < _LARGE_BYTES:
            return build(body)
        await self._turn.acquire()
        reading = asyncio.ensure_future(asyncio.to_thread(_checked, build, body))
        # Also where the client has left meanwhile: the thread works on.
        reading.add_done_callback(self._read)
        return await asyncio.shield(reading)

    def _read(self, reading: "asyncio.Future[Any]") -> None:
        self._turn.release()
        if not reading.cancelled():
            reading.exception()


def _checked(build: Callable[[bytes], T], body: bytes) -> T:
    check_values(body)
    return build(body)
