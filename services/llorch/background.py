"""Named background tasks whose end is always logged or raised."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from llorch.errors import Internal, Reason
from llorch.logs import get_logger

T = TypeVar("T")


def raise_if_cancelled() -> None:
    """For loops that catch errors and go on: a cancellation of this task that an error has covered is not lost.

    Before Python 3.13 a task group whose child fails while its own task is being cancelled raises the failure only.
    Not for use after a group whose body has ended when a child fails: up to 3.12 that leaves the task counted as
    being cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class TaskEndedEarly(Internal):
    """A task that runs for as long as its owner does returned by itself."""

    def __init__(self, name: str) -> None:
        super().__init__(Reason.INTERNAL, f"the background task {name} ended although its owner still runs")


class TaskSupervisor:
    """The background tasks of one owner, as an async context manager.

    A task that fails, or that was spawned with `forever=True` and returns, is logged under its name and ends
    the `async with` block with an exception group, as in `asyncio.TaskGroup`. Leaving the block cancels what
    still runs and waits for its `finally` blocks.
    """

    def __init__(self, owner: str) -> None:
        self._log = get_logger(owner)
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def spawn(self, name: str, work: Coroutine[Any, Any, T], *, forever: bool = False) -> asyncio.Task[T]:
        task = self._group.create_task(self._watched(name, work, forever=forever), name=name)
        # A task that is cancelled before its first step never comes to its work.
        task.add_done_callback(lambda _: work.close())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _watched(self, name: str, work: Coroutine[Any, Any, T], *, forever: bool) -> T:
        try:
            result = await work
        except Exception as error:
            self._log.error("background_task_failed", task=name, error=repr(error))
            raise
        if forever:
            self._log.error("background_task_ended_early", task=name)
            raise TaskEndedEarly(name)
        return result
