"""What has arrived of a request's body and was not asked for yet."""

import asyncio
from collections import deque

from llorch.errors import LlorchError


class Body:
    """For one task to read. Each part has a weight, in units of the one who puts it in, and gives it back once."""

    def __init__(self) -> None:
        self._parts: deque[tuple[bytes, int]] = deque()
        self._arrived = asyncio.Event()
        self.size = 0
        self.is_complete = False
        self._error: LlorchError | None = None
        self._is_unwanted = False

    def put(self, data: bytes, weight: int) -> int:
        """The weight of it where it is not wanted."""
        if self._is_unwanted:
            return weight
        self._parts.append((data, weight))
        self.size += len(data)
        self._arrived.set()
        return 0

    def complete(self) -> None:
        self.is_complete = True
        self._arrived.set()

    def fail(self, error: LlorchError) -> None:
        """What came cannot be read; what reads the body is told."""
        self._error = error
        self._arrived.set()

    def drop(self) -> int:
        """What is here, and what comes, is not wanted. The weight of what is here."""
        self._is_unwanted = True
        weight = sum(weight for _, weight in self._parts)
        self._parts.clear()
        self.size = 0
        return weight

    async def receive(self) -> tuple[bytes, int] | None:
        """The next part and its weight; None once there is no more."""
        while not self._parts:
            if self.is_complete:
                return None
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        data, weight = self._parts.popleft()
        self.size -= len(data)
        return data, weight
