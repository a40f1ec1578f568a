"""The events of one task for one reader, as a delivery brings them."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from llama_orch.v2 import delivery_service_pb2, task_event_pb2
from llorch.errors import LlorchError
from llorch.rpc.incoming import ended_by_peer
from llorch.rpc.status import error_from_details

_TOLD_EVERY_BYTES = 4096
"""A part of what the orchestrator sends ahead."""


@dataclass(frozen=True, slots=True)
class TaskResponse:
    """As `Generate` and `StreamTask` have it."""

    event: task_event_pb2.TaskEvent


class TaskEvents:
    """An async iterator for one task to read. `tell_taken` is called with the bytes that it has read now and then."""

    def __init__(self, tell_taken: Callable[[int], None]) -> None:
        self._tell_taken = tell_taken
        self._waiting: deque[bytes] = deque()
        self._is_over = False
        self._ended_with: LlorchError | None = None
        self._news: asyncio.Future[None] | None = None
        self._tell_broken: Callable[[], None] | None = None
        self._untold = 0

    def bring(self, delivered: delivery_service_pb2.Delivered) -> None:
        """What comes after the end is not read any more."""
        if self._is_over:
            return
        if delivered.event:
            self._waiting.append(delivered.event)
        if delivered.failure:
            self._ended_with = error_from_details(delivered.failure) or ended_by_peer()
        self._is_over = delivered.is_last
        self._wake()

    def when_broken(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once an error has ended it, whether what came before was read or not."""
        self._tell_broken = tell
        self._wake()

    def end(self, error: LlorchError) -> None:
        """The reader gets the error, after what has come."""
        if not self._is_over:
            self._is_over, self._ended_with = True, error
            self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TaskResponse:
        while not self._waiting:
            if self._ended_with is not None:
                raise self._ended_with
            if self._is_over:
                raise StopAsyncIteration
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        said = self._waiting.popleft()
        self._untold += len(said)
        if self._untold >= _TOLD_EVERY_BYTES:
            self._tell_taken(self._untold)
            self._untold = 0
        return TaskResponse(task_event_pb2.TaskEvent.FromString(said))

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        if self._ended_with is not None and self._tell_broken is not None:
            tell, self._tell_broken = self._tell_broken, None
            tell()
