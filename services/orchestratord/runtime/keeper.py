"""Everything on its way to the store. Writes run in the background; callers that have to wait for them wait here."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from llorch.background import TaskSupervisor
from llorch.clock import Clock
from llorch.errors import LlorchError, Reason, Unavailable
from llorch.logs import get_logger
from orchestratord.core import effects, events
from orchestratord.core.events import Event
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import TaskRequest
from orchestratord.runtime.kept_ends import KeptEnds
from orchestratord.store.interface import AuditEntry, Ending, Store
from orchestratord.store.kinds import kind_of

LAG_S = 2.0
"""Volatile records are written this often, the last state of each."""

MOST_LAGGING = 20_000
"""Records that wait for the disk, a few hundred bytes each."""

_LAGGING_AT_ONCE, _BESIDE_TASKS = 32, 8
"""Records that are written together; fewer while tasks are to be acknowledged, which wait for them."""

MOST_IN_DOUBT = 1000
"""Tasks that were refused since the store could not take them, and may stand in it all the same. While there are so
many, the next one is refused without asking the store.
"""

_FINISH_WITHIN_S = 5.0
_RETRY_AFTER_MS = 1000

_log = get_logger("orchestratord")

Result = TypeVar("Result")
_Writing = asyncio.Task[LlorchError | None]
_Place = tuple[str, str]
"""(kind, key) of a record."""


@dataclass(slots=True, eq=False)
class _Accepting:
    """Of a task that is on its way to the store. `error`: why it did not get there."""

    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    error: LlorchError | None = None


class Keeper:
    def __init__(self, store: Store, post: Callable[[Event], None], clock: Clock, tasks: TaskSupervisor) -> None:
        self._store = store
        self._post = post
        self._clock = clock
        self._tasks = tasks
        self._accepting: dict[str, _Accepting] = {}
        self._refused: dict[str, TaskRequest | None] = {}
        """Tasks that were not kept, until that is carried through: those with their request may be there, since a write
        that failed can have been done.
        """
        self._ends = KeptEnds(post, self._begin, self._note_failure)
        self._changing: _Writing | None = None
        self._audit_of_change: AuditEntry | None = None
        self._lagging: dict[_Place, RecordChange] = {}
        self._being_written: dict[_Place, RecordChange] = {}
        """Those that lagged, while they are written."""
        self._newest: dict[_Place, RecordChange] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self.failures = 0
        """Writes that the store could not do."""

    def keep_task(self, request: TaskRequest) -> None:
        writing = self._begin(f"keep {request.task_id}", self._save_task(request))
        self._accepting[request.task_id] = _Accepting()
        writing.add_done_callback(lambda _: self._give_up_accepting(request.task_id))

    async def wait_task_kept(self, task_id: str) -> None:
        """Returns when the store has the task. Raises the store's error if it could not keep it; the task fails."""
        accepting = self._accepting.get(task_id)
        if accepting is None:
            return
        await accepting.is_over.wait()
        if accepting.error is not None:
            raise accepting.error

    def keep_promise(self, task_id: str, promise: Promise | None) -> None:
        """The store takes it in its turn: no terminal of the task is kept, or shown, before it."""
        self._begin(f"keep the promise of {task_id}", self._save_promise(task_id, promise))

    def keep_stop(self, task_id: str, ending: Ending) -> None:
        """Of a task whose end is not known in full. No event follows; the whole end takes its place in the store."""
        self._ends.keep(task_id, partial(self._store.save_ending, task_id, ending), is_whole=False)

    def keep_ending(self, task_id: str, ending: Ending) -> None:
        """Posts TerminalPersisted once the store has it, however often that has to be tried. Of a task that was refused
        since it could not be kept, once the store certainly does not have the task.
        """
        self._ends.keep(task_id, partial(self._save_ending, task_id, ending), is_whole=True)

    async def wait_end_kept(self, task_id: str) -> None:
        """See `KeptEnds.wait`."""
        await self._ends.wait(task_id)

    def forget_task(self, task_id: str) -> None:
        self._begin(f"forget {task_id}", self._forget_task(task_id))

    def keep_record(self, effect: effects.PersistRecord) -> None:
        """No caller waits for it: what can't be written is learnt, or read in the settings file, another time."""
        change = RecordChange(effect.before, effect.after)
        place = _place_of(change)
        if kind_of(change.record).volatile:
            self._lagging[place] = change
            self._drop_what_lags_longest()
        else:
            self._supersede(place)
            self._newest[place] = change
            self._begin(f"keep {' '.join(place)}", self._save_record(place, change))

    def keep_change(self, effect: effects.PersistChange) -> None:
        """Posts ChangeKept or ChangeNotKept, and then `change_under_way` ends with the error, if there is one."""
        for change in effect.changes:
            self._supersede(_place_of(change))
        audit, self._audit_of_change = self._audit_of_change, None
        self._changing = self._begin("keep a change", self._save_change(effect.changes, audit))

    @property
    def change_under_way(self) -> _Writing | None:
        return None if self._changing is None or self._changing.done() else self._changing

    def keep_audit(self, entry: AuditEntry, *, of_change: bool = False) -> None:
        """`of_change`: of the change that is kept next. Both are kept or neither; then its failure is noted."""
        if of_change:
            self._audit_of_change = entry
        else:
            self._begin(f"note {entry.action}", self._append_audit(entry))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LAG_S)
            await self.write_lagging()

    async def write_lagging(self) -> None:
        """What can't be written now is tried again next time, unless it has changed by then."""
        if self._being_written:
            return
        self._being_written, self._lagging = _without_what_would_not_last(self._lagging), {}
        if not self._being_written:
            return
        try:
            while some := dict(islice(self._being_written.items(), self._lagging_at_once())):
                await self._store.save_records(list(some.values()))
                for place in some:
                    self._being_written.pop(place, None)
        except LlorchError as error:
            self.failures += 1
            _log.warning("records_lag", records=len(self._being_written), error=error.message)
            self._lagging = self._being_written | self._lagging
            self._drop_what_lags_longest()
        finally:
            self._being_written = {}

    def _lagging_at_once(self) -> int:
        return _BESIDE_TASKS if self._accepting else _LAGGING_AT_ONCE

    def _drop_what_lags_longest(self) -> None:
        """While the disk is full: what is lost is learnt anew, and sessions begin anew after a restart."""
        while len(self._lagging) > MOST_LAGGING:
            del self._lagging[next(iter(self._lagging))]

    async def finish(self) -> None:
        """At the end: finishes the writes under way, and writes volatile records, as far as the disk allows."""
        await self.write_lagging()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_WITHIN_S):
                while self._under_way:  # one that fails may begin another one
                    await asyncio.wait(self._under_way)

    def _supersede(self, place: _Place) -> None:
        """What of it has not been written yet is old by now."""
        for earlier in (self._lagging, self._being_written, self._newest):
            earlier.pop(place, None)

    def _begin(self, name: str, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = self._tasks.spawn(name, work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    def _end_accepting(self, task_id: str, error: LlorchError | None) -> None:
        """Once it is known; for good then."""
        if (accepting := self._accepting.pop(task_id, None)) is not None:
            accepting.error = error
            accepting.is_over.set()

    def _give_up_accepting(self, task_id: str) -> None:
        """Unless it has ended: its write was cancelled, and may be carried out all the same."""
        if task_id in self._accepting:
            self._end_accepting(task_id, _cut_short())

    async def _save_task(self, request: TaskRequest) -> None:
        in_doubt = None
        try:
            await self._take_back(request)
            in_doubt = request
            await self._store.save_task(request, self._now_ms())
        except LlorchError as error:
            if error.reason is not Reason.STORE_FULL:  # that is no fault, but its bound
                self.failures += 1
            self._refused[request.task_id] = in_doubt if error.reason is Reason.STORE_FAILED else None
            self._post(events.TaskNotKept(request.task_id, error.message, error.reason))
            self._end_accepting(request.task_id, error)
        else:
            # Before the event, so that callers get their answers before the runs that it begins.
            self._end_accepting(request.task_id, None)
            self._post(events.TaskKept(request.task_id))

    async def _take_back(self, request: TaskRequest) -> None:
        """Before a request is kept that was refused earlier: of the tasks that it was then none stays in the store."""
        in_doubt = [earlier for earlier in self._refused.values() if earlier is not None]
        if len(in_doubt) >= MOST_IN_DOUBT:
            raise Unavailable(
                Reason.STORE_FAILED,
                "the orchestrator could not write to its database for a while, and tries to; nothing was changed; see "
                "its log, and try again later",
                retry_after_ms=_RETRY_AFTER_MS,
            )
        for earlier in in_doubt if request.request_id else ():
            if (earlier.app, earlier.request_id) == (request.app, request.request_id):
                await self._store.forget_task(earlier.task_id)

    async def _save_promise(self, task_id: str, promise: Promise | None) -> None:
        """One that can't be kept holds as long as this process does."""
        try:
            await self._store.save_promise(task_id, promise)
        except LlorchError as error:
            self.failures += 1
            _log.error("promise_not_kept", task_id=task_id, error=error.message)

    async def _save_ending(self, task_id: str, ending: Ending) -> None:
        if (accepting := self._accepting.get(task_id)) is not None:
            await accepting.is_over.wait()
        if task_id not in self._refused:
            await self._store.save_ending(task_id, ending)
            return
        if self._refused[task_id] is not None:
            await self._store.forget_task(task_id)
        self._refused.pop(task_id, None)

    def _note_failure(self) -> None:
        self.failures += 1

    async def _forget_task(self, task_id: str) -> None:
        """A task that can't be deleted now is deleted at the next start, when its time is over."""
        try:
            await self._store.forget_task(task_id)
        except LlorchError as error:
            self.failures += 1
            _log.warning("task_not_forgotten", task_id=task_id, error=error.message)

    async def _save_record(self, place: _Place, change: RecordChange) -> None:
        """It can't be refused: what can't be written now is tried again with what lags, unless it has changed."""
        try:
            await self._store.save_records([change])
        except LlorchError as error:
            self.failures += 1
            _log.warning("record_not_kept", kind=place[0], key=place[1], error=error.message)
            if self._newest.get(place) is change:
                self._lagging[place] = change
        if self._newest.get(place) is change:
            del self._newest[place]

    async def _save_change(self, changes: Sequence[RecordChange], audit: AuditEntry | None) -> LlorchError | None:
        try:
            await self._store.save_records(changes, audit)
        except LlorchError as error:
            self.failures += 1
            self._post(events.ChangeNotKept())
            if error.reason is Reason.STORE_FAILED:  # it may be there all the same, and is not what is in force
                self._lagging |= {_place_of(change): RecordChange(change.after, change.before) for change in changes}
            if audit is not None:
                await self._append_audit(replace(audit, outcome=error.reason.value))
            return error
        self._post(events.ChangeKept())
        return None

    async def _append_audit(self, entry: AuditEntry) -> None:
        try:
            await self._store.append_audit(entry)
        except LlorchError as error:
            self.failures += 1
            _log.error("audit_not_kept", action=entry.action, actor=entry.actor, error=error.message)

    def _now_ms(self) -> int:
        return round(self._clock.wall().timestamp() * 1000)


def _place_of(change: RecordChange) -> _Place:
    return kind_of(change.record).name, change.record.record_key


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


def _cut_short() -> Unavailable:
    return Unavailable(
        Reason.DRAINING,
        "the orchestrator ended while it wrote the task, and may have written it; submit it again, with the same "
        "request_id if it is not to run twice",
        retry_after_ms=_RETRY_AFTER_MS,
    )
