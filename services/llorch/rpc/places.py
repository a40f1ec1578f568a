"""How many calls a server serves at once."""

import asyncio
from typing import Any

from llorch.errors import Reason, ResourceExhausted

Tasks = set[asyncio.Task[Any]]

_RETRY_WHEN_BUSY_MS = 100


class Places:
    """The calls of one kind that run."""

    def __init__(self, kind: str, most: int) -> None:
        self._kind = kind
        self._most = most
        self.running: Tasks = set()

    def take(self, task: asyncio.Task[Any]) -> None:
        """Raises ResourceExhausted."""
        if len(self.running) >= self._most:
            raise ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                f"this server has {self._most} {self._kind} to answer already; try again shortly",
                retry_after_ms=_RETRY_WHEN_BUSY_MS,
            )
        self.running.add(task)

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Also for a task that got no place."""
        self.running.discard(task)
