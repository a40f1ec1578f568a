"""What has arrived of a request's body and was not asked for yet."""

import asyncio
from collections import deque
from collections.abc import Callable

from llorch.errors import LlorchError


class Body:
    """For one task to read. `taken` hears how much was read of what had arrived, in units of the one who puts it in."""

    def __init__(self, taken: Callable[[int], None]) -> None:
        self._taken = taken
        self._parts: deque[tuple[bytes, int]] = deque()
        self._arrived = asyncio.Event()
        self.size = 0
        self.is_complete = False
        self._error: LlorchError | None = None
        self._is_unwanted = False

    def put(self, data: bytes, weight: int) -> None:
        if self._is_unwanted:
            self._taken(weight)
            return
        self._parts.append((data, weight))
        self.size += len(data)
        self._arrived.set()

    def complete(self) -> None:
        self.is_complete = True
        self._arrived.set()

    def fail(self, error: LlorchError) -> None:
        """What came cannot be read; what reads the body is told."""
        self._error = error
        self._arrived.set()

    def drop(self) -> None:
        """What is here, and what comes, is not wanted."""
        self._is_unwanted = True
        parts = list(self._parts)
        self._parts.clear()
        self.size = 0
        for _, weight in parts:
            self._taken(weight)

    async def receive(self) -> bytes | None:
        while not self._parts:
            if self.is_complete:
                return None
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        data, weight = self._parts.popleft()
        self.size -= len(data)
        self._taken(weight)
        return data
