"""Ends of tasks on their way to the store. None is shown before the store has it, so each is tried until it does.

A full disk or one that fails holds up terminals, not readers: `runtime.task_reader` sends those away after a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from llorch.errors import LlorchError, Reason, Unavailable
from llorch.logs import get_logger
from orchestratord.core.events import Event, TerminalPersisted

ANSWERED_WITHIN_S = 5.0
"""A caller who waits for an end is told after so long that it is not kept yet."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0
_TRIED_AT_ONCE = 16
"""Of those that have failed: a disk that is full is not asked for each of a thousand every time."""
_RETRY_AFTER_MS = 1000

_log = get_logger("orchestratord")

Spawn = Callable[[str, Coroutine[Any, Any, None]], object]
Write = Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _End:
    """`write` may be called again and again. `is_over`: the store has it, or a later one took its place."""

    task_id: str
    write: Write
    is_whole: bool
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class KeptEnds:
    """The newest end of each task whose end the store does not have yet: at most one for each task that was accepted.

    `failed` is called for each attempt that came to nothing.
    """

    def __init__(self, post: Callable[[Event], None], spawn: Spawn, failed: Callable[[], None]) -> None:
        self._post = post
        self._spawn = spawn
        self._failed = failed
        self._ends: dict[str, _End] = {}
        self._to_retry: dict[_End, None] = {}
        """The one that failed last comes last, so that one that can't be written holds up no other."""
        self._is_retrying = False

    def keep(self, task_id: str, write: Write, *, is_whole: bool) -> None:
        """In place of an earlier end of the task. Posts TerminalPersisted for a whole one, once it is kept."""
        if (earlier := self._ends.get(task_id)) is not None:
            self._leave(earlier)
        end = self._ends[task_id] = _End(task_id, write, is_whole)
        self._spawn(f"keep the end of {task_id}", self._try_first(end))

    async def wait(self, task_id: str) -> None:
        """Returns when the store has the end of the task, so far as it was known. Raises Unavailable / STORE_FAILED
        where that takes too long.
        """
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                while (end := self._ends.get(task_id)) is not None:
                    await end.is_over.wait()
        except TimeoutError:
            raise Unavailable(
                Reason.STORE_FAILED,
                f"task '{task_id}' has ended, and the orchestrator could not write that to its database yet; it goes "
                "on trying; ask again",
                retry_after_ms=_RETRY_AFTER_MS,
            ) from None

    async def _try_first(self, end: _End) -> None:
        if not await self._try(end):
            _log.error("end_not_kept", task_id=end.task_id)

    async def _try(self, end: _End) -> bool:
        """Whether there is no more to do for it."""
        try:
            await end.write()
        except LlorchError:
            self._failed()
            if self._ends.get(end.task_id) is not end:
                return True
            self._to_retry.pop(end, None)
            self._to_retry[end] = None
            self._begin_retrying()
            return False
        if self._ends.get(end.task_id) is end:
            del self._ends[end.task_id]
            self._leave(end)
            if end.is_whole:
                self._post(TerminalPersisted(end.task_id))
        return True

    def _leave(self, end: _End) -> None:
        self._to_retry.pop(end, None)
        end.is_over.set()

    def _begin_retrying(self) -> None:
        if not self._is_retrying:
            self._is_retrying = True
            self._spawn("keep the ends of tasks that could not be kept", self._retry())

    async def _retry(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._to_retry:
            await asyncio.sleep(pause_s)
            are_kept = await asyncio.gather(*map(self._try, islice(tuple(self._to_retry), _TRIED_AT_ONCE)))
            if all(are_kept):
                pause_s = 0.0
            elif any(are_kept):
                pause_s = FIRST_PAUSE_S
            else:
                pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
        self._is_retrying = False
