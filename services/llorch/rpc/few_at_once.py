"""How many calls of one kind a client has under way, so that others of its calls find room on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llorch.errors import Reason, ResourceExhausted

_RETRY_MS = 1000


class FewAtOnce:
    """`refusal` is what the caller beyond `most` is told, once it has waited for `wait_s` for a place."""

    def __init__(self, most: int, refusal: str, *, wait_s: float = 0.0) -> None:
        self._places = asyncio.Semaphore(most)
        self._refusal = refusal
        self._wait_s = wait_s

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Around the call. Raises ResourceExhausted."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise ResourceExhausted(Reason.TOO_MANY_CALLS, self._refusal, retry_after_ms=_RETRY_MS) from None
        try:
            yield
        finally:
            self._places.release()
