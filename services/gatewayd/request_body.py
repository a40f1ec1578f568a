"""Reading what a client sent, within the limits of this gateway."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from gatewayd.exchange import Exchange

T = TypeVar("T")

# What takes longer to read than the streams can wait goes to a thread.
_LARGE_BYTES = 128 * 1024


class BodyReader:
    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def read(self, exchange: Exchange, build: Callable[[bytes], T]) -> T:
        """What `build` makes of the body."""
        body = await exchange.read_body(self._max_bytes, self._timeout_s)
        if len(body) < _LARGE_BYTES:
            return build(body)
        return await asyncio.to_thread(build, body)
