"""Everything on its way to the store. Writes run in the background; callers that have to wait for them wait here."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from llorch.background import TaskSupervisor
from llorch.clock import Clock
from llorch.errors import LlorchError
from llorch.logs import get_logger
from orchestratord.core import effects, events
from orchestratord.core.events import Event
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import Record
from orchestratord.core.facts.task import TaskRequest
from orchestratord.store.interface import AuditEntry, Ending, RecordChange, Store
from orchestratord.store.kinds import kind_of

LAG_S = 2.0
"""Volatile records are written this often, the last state of each."""

_FINISH_WITHIN_S = 5.0

_log = get_logger("orchestratord")

Result = TypeVar("Result")
_Writing = asyncio.Task[LlorchError | None]
_Place = tuple[str, str]
"""(kind, key) of a record."""


@dataclass(slots=True)
class _Writes:
    """Changes of one record that are being written, and what the store had of it before the first of them."""

    kept: Record | None
    count: int = 0


class Keeper:
    def __init__(self, store: Store, post: Callable[[Event], None], clock: Clock, tasks: TaskSupervisor) -> None:
        self._store = store
        self._post = post
        self._clock = clock
        self._tasks = tasks
        self._accepting: dict[str, _Writing] = {}
        self._changing: set[_Writing] = set()
        self._writes: dict[_Place, _Writes] = {}
        self._lagging: dict[_Place, RecordChange] = {}
        self._reports: dict[_Place, RecordChange] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self.failures = 0
        """Writes that the store could not do."""

    def keep_task(self, request: TaskRequest) -> None:
        writing = self._begin(f"keep {request.task_id}", self._save_task(request))
        self._accepting[request.task_id] = writing
        writing.add_done_callback(lambda _: self._accepting.pop(request.task_id, None))

    async def wait_task_kept(self, task_id: str) -> None:
        """Returns when the store has the task. Raises the store's error if it could not keep it; the task fails."""
        writing = self._accepting.get(task_id)
        if writing is not None and (error := await asyncio.shield(writing)) is not None:
            raise error

    def keep_promise(self, task_id: str, promise: Promise | None) -> None:
        """The store takes it in its turn: no terminal of the task is kept, or shown, before it."""
        self._begin(f"keep the promise of {task_id}", self._save_promise(task_id, promise))

    def keep_ending(self, task_id: str, ending: Ending) -> None:
        self._begin(f"keep the end of {task_id}", self._save_ending(task_id, ending))

    def forget_task(self, task_id: str) -> None:
        self._begin(f"forget {task_id}", self._forget_task(task_id))

    def keep_record(self, effect: effects.PersistRecord) -> None:
        change = RecordChange(effect.before, effect.after)
        kind = kind_of(change.record)
        place = (kind.name, change.record.record_key)
        if kind.volatile:
            self._lagging[place] = change
            return
        if kind.reported:
            self._reports[place] = change
            self._begin(f"keep {' '.join(place)}", self._save_report(place, change))
            return
        writes = self._writes.setdefault(place, _Writes(effect.before))
        writes.count += 1
        writing = self._begin(f"keep {' '.join(place)}", self._save_record(place, change, writes))
        self._changing.add(writing)
        writing.add_done_callback(self._changing.discard)

    async def wait_all_kept(self) -> None:
        """Returns when every change of a record up to now is kept; raises if one is not, and by then it is undone."""
        for error in await asyncio.gather(*(asyncio.shield(writing) for writing in self._changing)):
            if error is not None:
                raise error

    def keep_audit(self, entry: AuditEntry) -> None:
        self._begin(f"note {entry.action}", self._append_audit(entry))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LAG_S)
            await self.write_lagging()

    async def write_lagging(self) -> None:
        """What can't be written now is tried again next time, unless it has changed by then."""
        lagging, self._lagging = _without_what_would_not_last(self._lagging), {}
        if not lagging:
            return
        try:
            await self._store.save_records(list(lagging.values()))
        except LlorchError as error:
            self.failures += 1
            _log.warning("records_lag", records=len(lagging), error=error.message)
            self._lagging = lagging | self._lagging

    async def finish(self) -> None:
        """At the end: finishes the writes under way, and writes volatile records, as far as the disk allows."""
        await self.write_lagging()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_FINISH_WITHIN_S)

    def _begin(self, name: str, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = self._tasks.spawn(name, work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _save_task(self, request: TaskRequest) -> LlorchError | None:
        try:
            await self._store.save_task(request, self._now_ms())
        except LlorchError as error:
            self.failures += 1
            self._post(events.TaskNotKept(request.task_id, error.message))
            return error
        return None

    async def _save_promise(self, task_id: str, promise: Promise | None) -> None:
        """One that can't be kept holds as long as this process does."""
        try:
            await self._store.save_promise(task_id, promise)
        except LlorchError as error:
            self.failures += 1
            _log.error("promise_not_kept", task_id=task_id, error=error.message)

    async def _save_ending(self, task_id: str, ending: Ending) -> None:
        """A terminal that can't be kept is shown all the same: readers must not hang on a full disk."""
        try:
            await self._store.save_ending(task_id, ending)
        except LlorchError as error:
            self.failures += 1
            _log.error("terminal_not_kept", task_id=task_id, error=error.message)
        self._post(events.TerminalPersisted(task_id))

    async def _forget_task(self, task_id: str) -> None:
        """A task that can't be deleted now is deleted at the next start, when its time is over."""
        try:
            await self._store.forget_task(task_id)
        except LlorchError as error:
            self.failures += 1
            _log.warning("task_not_forgotten", task_id=task_id, error=error.message)

    async def _save_record(self, place: _Place, change: RecordChange, writes: _Writes) -> LlorchError | None:
        """If a later change of the same record is on its way, that one decides what is in force."""
        refusal: LlorchError | None = None
        try:
            await self._store.save_records([change])
            writes.kept = change.after
        except LlorchError as error:
            self.failures += 1
            refusal = error
        writes.count -= 1
        if writes.count == 0:
            del self._writes[place]
            if refusal is not None:
                self._post(events.RecordNotKept(writes.kept, change.after))
        return refusal

    async def _save_report(self, place: _Place, change: RecordChange) -> None:
        """It can't be refused, so if it can't be written now, the newest one is tried again with what lags."""
        try:
            await self._store.save_records([change])
        except LlorchError as error:
            self.failures += 1
            _log.warning("report_not_kept", kind=place[0], key=place[1], error=error.message)
            self._lagging[place] = self._reports.get(place, change)
        if self._reports.get(place) is change:
            del self._reports[place]

    async def _append_audit(self, entry: AuditEntry) -> None:
        try:
            await self._store.append_audit(entry)
        except LlorchError as error:
            self.failures += 1
            _log.error("audit_not_kept", action=entry.action, actor=entry.actor, error=error.message)

    def _now_ms(self) -> int:
        return round(self._clock.wall().timestamp() * 1000)


def _without_what_would_not_last(lagging: dict[_Place, RecordChange]) -> dict[_Place, RecordChange]:
    """Of kinds of which only the newest are kept, more may have been added than that."""
    count: Counter[str] = Counter()
    kept = {}
    for place, change in reversed(lagging.items()):
        keep_last = kind_of(change.record).keep_last
        count[place[0]] += 1
        if keep_last is None or count[place[0]] <= keep_last:
            kept[place] = change
    return dict(reversed(kept.items()))
