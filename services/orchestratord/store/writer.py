"""The one writer of a store: a thread that carries out operations in order, many to a transaction.

A commit costs a wait for the disk, whatever is in it; what was asked for while one was under way shares the next. So
does what comes while that one is carried out, once: it would have to wait for the disk twice.

Callers go on all at once when their group is committed, and the writer would have to wait for each turn of its thread
beside them. So they are told right before the next group, if there is one, is committed and waits for the disk. Where
another program holds the database locked meanwhile, they wait for that too.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from llorch.errors import Reason, Unavailable
from llorch.logs import get_logger

LARGEST_GROUP = 256
LARGEST_GROUP_BYTES = 16 * 1024 * 1024
"""Of what is written together: a transaction of a gigabyte would hold up those that come next for seconds."""
_LARGE_BYTES = 1024 * 1024
"""To write so much takes as long as a turn of a thread, and may have to wait for the disk before it is committed."""
GROUPS_UNTIDIED = 16
"""The most between two steps of tidying up, while there is always something to write, and as many bytes as one group
may have.
"""
_RETRY_AFTER_MS = 1000

_log = get_logger("orchestratord")

Result = TypeVar("Result")
Operation = Callable[[Connection], Any]
"""Works on the connection that it is given and on nothing else: it may be carried out twice."""


@dataclass(frozen=True, slots=True)
class _Asked:
    operation: Operation
    size: int
    future: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _Outcome:
    future: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        if self.future.done():  # the caller was cancelled; the write is done all the same
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


TidyUp = Callable[[Engine, int], bool]
"""A short step of what the database needs now and then, in the writer's thread, after so many groups; whether more is
to be done.
"""


class Writer:
    """Started by the first `write`; ended by `close`, after everything that was asked for before.

    While nothing is asked for it takes steps of tidying up, and now and then between two groups.
    """

    def __init__(self, engine: Engine, tidy_up: TidyUp | None = None) -> None:
        self._engine = engine
        self._tidy_up = tidy_up
        self._is_untidy = False
        self._groups, self._bytes = 0, 0
        """Since the last step of tidying up."""
        self._untold: list[_Outcome] = []
        """Of the group before."""
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        """None is the last."""
        self._has_more = True
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop

    async def write(self, operation: Callable[[Connection], Result], size: int = 0) -> Result:
        """The operation's result, once it is committed. Raises Unavailable / STORE_FAILED, and then it may be there, or
        not: a disk can fail after it has written.

        `size`: about how many bytes it writes, where these are many.
        """
        if self._is_closed:
            raise Unavailable(Reason.STORE_FAILED, "the store is closed; the orchestrator is ending")
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(loop,), name="store", daemon=True)
            self._thread.start()
        future: asyncio.Future[Result] = loop.create_future()
        self._asked.put(_Asked(operation, size, future))
        return await future

    async def close(self) -> None:
        self._is_closed = True
        if self._thread is not None:
            self._asked.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._engine.dispose()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        while self._has_more:
            self._rest()
            group = self._next_group()
            outcomes = self._carry_out(group) if group else []
            self._tell()  # where no operation came as far as the disk
            self._untold, self._is_untidy = outcomes, True
            self._groups, self._bytes = self._groups + 1, self._bytes + _size(group)
        self._tell()

    def _rest(self) -> None:
        """As long as nothing is asked for, and there is anything else to do."""
        while self._is_untidy and (self._asked.empty() or self._is_time_to_tidy_up()):
            self._tell()
            self._is_untidy = self._tidy()

    def _tell(self) -> None:
        if self._untold:
            self._loop.call_soon_threadsafe(_set, self._untold)
            self._untold = []

    def _is_time_to_tidy_up(self) -> bool:
        return self._groups >= GROUPS_UNTIDIED or self._bytes >= LARGEST_GROUP_BYTES

    def _next_group(self) -> list[_Asked]:
        """Waits for something to do, then takes what else is there."""
        group: list[_Asked] = []
        self._take_into(group)
        self._take_all_into(group)
        return group

    def _take_all_into(self, group: list[_Asked]) -> None:
        """What is there, as far as a group may have it."""
        while (
            self._has_more
            and not self._asked.empty()
            and len(group) < LARGEST_GROUP
            and _size(group) < LARGEST_GROUP_BYTES
        ):
            self._take_into(group)

    def _take_into(self, group: list[_Asked]) -> None:
        asked = self._asked.get()
        if asked is None:
            self._has_more = False
        else:
            group.append(asked)

    def _tidy(self) -> bool:
        """What fails is tried again after the next group."""
        groups, self._groups, self._bytes = self._groups, 0, 0
        try:
            return self._tidy_up is not None and self._tidy_up(self._engine, groups)
        except SQLAlchemyError as error:
            _log.warning("store_not_tidied_up", error=str(error.__cause__ or error))
            return False

    def _carry_out(self, group: list[_Asked]) -> list[_Outcome]:
        """All in one transaction; if that fails, one transaction each, so that one bad operation fails alone."""
        try:
            with self._engine.begin() as connection:
                results = self._results(connection, group)
                self._tell()
            return [_Outcome(asked.future, result) for asked, result in zip(group, results, strict=True)]
        except Exception as error:  # noqa: BLE001  # the caller gets it, and the thread goes on
            self._tell()
            if len(group) == 1:
                return [_failure(group[0], error)]
            _log.info("group_not_written", operations=len(group))  # below, each alone shows which one failed
        return [self._carry_out_alone(asked) for asked in group]

    def _results(self, connection: Connection, group: list[_Asked]) -> list[Any]:
        """Of the group, and of what comes meanwhile, which joins it."""
        results = self._results_of(connection, group)
        self._take_all_into(group)
        return results + self._results_of(connection, group[len(results) :])

    def _results_of(self, connection: Connection, some: list[_Asked]) -> list[Any]:
        if _size(some) >= _LARGE_BYTES:
            self._tell()
        return [asked.operation(connection) for asked in some]

    def _carry_out_alone(self, asked: _Asked) -> _Outcome:
        try:
            with self._engine.begin() as connection:
                result = asked.operation(connection)
            return _Outcome(asked.future, result)
        except Exception as error:  # noqa: BLE001  # the caller gets it, and the thread goes on
            return _failure(asked, error)


def _size(group: list[_Asked]) -> int:
    return sum(asked.size for asked in group)


def _failure(asked: _Asked, error: Exception) -> _Outcome:
    if not isinstance(error, SQLAlchemyError):
        return _Outcome(asked.future, error=error)
    _log.error("store_failed", error=str(error.__cause__ or error))
    return _Outcome(asked.future, error=_failed())


def _set(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()


def _failed() -> Unavailable:
    return Unavailable(
        Reason.STORE_FAILED,
        "the orchestrator could not write to its database, and nothing was changed; see its log, make room on its "
        "disk, or raise database_mib in the section [orchestrator] of its settings file if that is what is full, and "
        "try again",
        retry_after_ms=_RETRY_AFTER_MS,
    )
