"""The streams of all tasks that are kept: logs that workers write and any number of readers follow."""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from llama_orch.v2 import log_entry_pb2, run_pb2, task_event_pb2
from llorch.errors import Reason, Unavailable
from orchestratord.convert import task_events
from orchestratord.convert.task_events import OutputLog
from orchestratord.convert.task_output import PACKING
from orchestratord.core import events
from orchestratord.core.events import Event
from orchestratord.core.facts.task import TaskRequest, Terminal
from orchestratord.core.facts.task_log import FIRST_EPOCH, Cursor, TaskLog
from orchestratord.core.state import RECOVERING_RETRY_MS

MOST_BYTES_OF_ONE = 12 * 1024 * 1024
"""Of one task's output: with a prompt it fits into one message (16 MiB), to a reader that comes late, or to the worker
where the task goes on.
"""

DEFAULT_MOST_BYTES = 192 * 1024 * 1024

_EARLIER_PROCESS = "earlier"
"""The writer of the output that the store has kept; no attempt has this id."""

NOTES_KEPT = 200
"""Of one task. One that waits long, or goes from place to place, may be told more than that."""


_TASK_BYTES = 2560
"""What a finished task takes beside its output, with what the brain keeps of it, as measured."""

_NOTE_BYTES = 150
"""What a note takes beside what it says."""


@dataclass(frozen=True, slots=True)
class Note:
    """An event beside the output, sent when a reader comes to `at_seq`: a Placed or a Narration, serialized."""

    at_seq: int
    is_place: bool
    said: bytes

    @property
    def size(self) -> int:
        return len(self.said) + _NOTE_BYTES


@dataclass(frozen=True, slots=True)
class Appended:
    """What came of an append. `is_first`: of its attempt. `decided`: another attempt might have been faster, and may
    append no more now. `goes_on`: the log is as long as was watched for.
    """

    is_first: bool = False
    decided: bool = False
    goes_on: bool = False


NOTHING_NEW = Appended()


@dataclass(slots=True)
class Meter:
    """How many bytes all tasks take together."""

    total: int = 0


@dataclass(slots=True)
class TaskStream:
    """One task's output. Readers wait for `changed`; a writer calls `wake` after each change.

    What is kept for readers that come later is kept as bytes: as messages it would take many times as much.
    """

    request: TaskRequest
    queue_position: int
    admitted_at: datetime
    predicted_start_ms: int | None = None
    meter: Meter = field(default_factory=Meter)
    log: OutputLog = field(default_factory=partial(TaskLog, PACKING))
    notes: list[Note] = field(default_factory=list)
    notes_dropped: int = 0
    """How many came before those in `notes`."""
    place_dropped: Note | None = None
    """The last place among them."""
    size: int = 0
    """About how many bytes of memory the task takes."""
    revision: int = 0
    """How often it was woken."""
    _last_writer: str = ""
    _watched_from: int | None = None
    _own_epoch: int = FIRST_EPOCH
    """Of the log that begins where nothing is found."""
    _found: str = ""
    """The attempt that was found."""
    _awaits: float | None = None
    """Entries that were there before the start of the orchestrator, and are to come; infinite as long as that is not
    known.
    """
    end_asked_at: float | None = None
    """Since when the store is to keep the end, by the owner's clock; the terminal is there once it does."""
    _terminal: bytes | None = None
    _reading: bytes | None = None
    _watching: dict[Callable[[], None], None] | None = None
    """None where no reader does, as is the rule for as long as a finished task is kept."""

    @property
    def has_ended(self) -> bool:
        return self._terminal is not None

    @property
    def terminal(self) -> task_event_pb2.TaskEvent | None:
        return None if self._terminal is None else task_event_pb2.TaskEvent.FromString(self._terminal)

    @property
    def reading(self) -> run_pb2.RunEnd | None:
        """The end of a run that read texts: their vectors or scores are in it, and nowhere else."""
        return None if self._reading is None else run_pb2.RunEnd.FromString(self._reading)

    def keep_reading(self, end: run_pb2.RunEnd | None) -> None:
        before = len(self._reading or b"")
        self._reading = None if end is None else end.SerializeToString()
        self.count(len(self._reading or b"") - before)

    def append(self, attempt_id: str, entries: Iterable[log_entry_pb2.LogEntry]) -> Appended:
        """Append an attempt's entries; those of a superseded attempt are dropped."""
        log = self.log
        before, bytes_before, writers = len(log), log.size, log.writers
        for entry in entries:
            log.append(attempt_id, entry)
        if len(log) == before:
            return NOTHING_NEW
        self.count(log.size - bytes_before)
        self.wake()
        is_first, self._last_writer = self._last_writer != attempt_id, attempt_id
        if self._awaits is not None and len(log) >= self._awaits:
            self._awaits = None
        self._note_whether_found_left()
        goes_on = self._watched_from is not None and len(log) >= self._watched_from
        if goes_on:
            self._watched_from = None
        return Appended(is_first, len(writers) > 1, goes_on)

    def resume_at(self, cursor: Cursor) -> int:
        """As `TaskLog.resume_at`; raises Unavailable as long as it is not known what there is to go on from."""
        is_there = cursor.log_epoch == self.log.log_epoch and cursor.next_seq <= len(self.log)
        if self._awaits is not None and cursor.next_seq and not is_there:
            raise Unavailable(
                Reason.RECOVERING,
                "after: the orchestrator has just started and looks for the output that this cursor is of; ask again",
                retry_after_ms=RECOVERING_RETRY_MS,
            )
        return self.log.resume_at(cursor)

    def lose_sight(self) -> None:
        """It is not known whether an attempt of before the start still runs."""
        self._awaits = math.inf

    def begin_anew(self) -> None:
        self._awaits = None

    def is_found(self, attempt_id: str, log_epoch: int, entries: int) -> None:
        """On a worker, with so many entries that are still to come from there."""
        self._found = attempt_id
        self._own_epoch, self.log.log_epoch, self.log.was_found = self.log.log_epoch, log_epoch, True
        self._awaits = entries or None

    def end_attempt(self, attempt_id: str) -> None:
        """What it still brings is dropped."""
        self.log.end_attempt(attempt_id)
        self._note_whether_found_left()

    def _note_whether_found_left(self) -> None:
        """Where the attempt that was found may bring no more, what it had not told is lost; if it had told nothing,
        what comes next is of another epoch.
        """
        if self._awaits is None or math.isinf(self._awaits) or self._found in self.log.writers:
            return
        self._awaits = None
        if not len(self.log):
            self.log.log_epoch = self._own_epoch

    def watch_output(self, entries: int) -> None:
        """The append that makes the log so many entries longer than it is now says so."""
        self._watched_from = len(self.log) + entries

    def note(self, said: task_event_pb2.Placed | task_event_pb2.Narration) -> None:
        if self.has_ended:
            return
        is_place = isinstance(said, task_event_pb2.Placed)
        note = Note(len(self.log), is_place, said.SerializeToString())
        self.notes.append(note)
        self.count(note.size)
        if len(self.notes) > NOTES_KEPT:
            oldest = self.notes.pop(0)
            self.count(-oldest.size)
            self.notes_dropped += 1
            self.place_dropped = oldest if oldest.is_place else self.place_dropped
        self.wake()

    def end(self, terminal: Terminal) -> None:
        if self.has_ended:
            raise RuntimeError(f"task {self.request.task_id} was given a second terminal")
        self.log.seal()
        self._awaits = None  # nothing follows, also where its run was not found before it was cancelled
        self._last_writer = self._found = ""
        self._terminal = task_events.terminal_to_proto(self.request.task_id, self.log, terminal).SerializeToString()
        self.count(len(self._terminal))
        self.wake()

    def count(self, more: int) -> None:
        """The task takes so many bytes more."""
        self.size += more
        self.meter.total += more

    def wake(self) -> None:
        self.revision += 1
        for woken in tuple(self._watching or ()):
            woken()

    def watch(self, woken: Callable[[], None]) -> None:
        """It is called at each `wake`, until `unwatch`."""
        if self._watching is None:
            self._watching = {}
        self._watching[woken] = None

    def unwatch(self, woken: Callable[[], None]) -> None:
        if self._watching is not None:
            self._watching.pop(woken, None)
        self._watching = self._watching or None

    async def changed(self, since: int) -> None:
        """Returns once there was a `wake` after `revision` was `since`. Take the revision before the stream is read:
        what comes while that is written to a client is news.
        """
        if self.revision != since:
            return
        news = asyncio.Event()
        self.watch(news.set)
        try:
            await news.wait()
        finally:
            self.unwatch(news.set)


class TaskStreams:
    """By task, and by the attempt that writes. `most_bytes` is what all of them may take together."""

    def __init__(self, most_bytes: int = DEFAULT_MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._meter = Meter()
        self._streams: dict[str, TaskStream] = {}
        self._unfinished: dict[str, TaskStream] = {}
        self._writing: dict[str, TaskStream] = {}

    def open(
        self, request: TaskRequest, queue_position: int, admitted_at: datetime, predicted_start_ms: int | None = None
    ) -> None:
        stream = TaskStream(request, queue_position, admitted_at, predicted_start_ms, self._meter)
        stream.count(_TASK_BYTES)
        self._streams[request.task_id] = self._unfinished[request.task_id] = stream

    def restore(
        self, request: TaskRequest, admitted_at: datetime, log_epoch: int, entries: Iterable[log_entry_pb2.LogEntry]
    ) -> TaskStream:
        """The stream of a task that an earlier orchestrator process accepted."""
        self.open(request, 0, admitted_at)
        stream = self._streams[request.task_id]
        stream.log.log_epoch = log_epoch
        stream.log.begin_attempt(_EARLIER_PROCESS)
        stream.append(_EARLIER_PROCESS, entries)
        stream.log.end_attempt(_EARLIER_PROCESS)
        return stream

    def get(self, task_id: str) -> TaskStream:
        """For tasks that the brain knows; it opens a task's log before it emits anything else of it."""
        return self._streams[task_id]

    def begin_attempt(self, task_id: str, attempt_id: str) -> TaskStream:
        """It writes beside those of the task that may still write: the first of them to append decides."""
        stream = self._streams[task_id]
        stream.log.begin_attempt(attempt_id)
        self._writing[attempt_id] = stream
        return stream

    def end_writing(self, task_id: str) -> OutputLog:
        """What its attempts still bring is dropped: the log is what is kept of the task."""
        log = self._streams[task_id].log
        for attempt_id in log.writers:
            self._writing.pop(attempt_id, None)
        return log

    def end(self, request: TaskRequest, terminal: Terminal) -> None:
        """The terminal of the task is there for its readers, and what only its attempts needed goes. `request` is what
        is kept of it.
        """
        stream = self._unfinished.pop(request.task_id)
        self.end_writing(request.task_id)
        stream.end(terminal)
        stream.request = request

    def end_attempt(self, attempt_id: str) -> None:
        """What the attempt still brings is dropped, whether or not another one follows."""
        if (stream := self._writing.pop(attempt_id, None)) is not None:
            stream.end_attempt(attempt_id)

    def writer(self, attempt_id: str) -> TaskStream | None:
        """The stream that this attempt may write to; None for a superseded or forgotten one."""
        stream = self._writing.get(attempt_id)
        if stream is not None and attempt_id not in stream.log.writers:  # another one was faster
            del self._writing[attempt_id]
            return None
        return stream

    def forget(self, task_id: str) -> None:
        stream = self._streams.pop(task_id)
        self._unfinished.pop(task_id, None)
        stream.count(-stream.size)
        stream.meter = Meter()  # a call that still has it changes nothing for the others
        for attempt_id in stream.log.writers:
            self._writing.pop(attempt_id, None)

    @property
    def total_bytes(self) -> int:
        return self._meter.total

    def make_room(self, post: Callable[[Event], None]) -> None:
        """Tells the brain as long as they take more than they may, and it lets something go."""
        before = None
        while self.total_bytes > self._most_bytes and self.total_bytes != before:
            before = self.total_bytes
            growing = (it for it, stream in self._unfinished.items() if stream.end_asked_at is None)
            post(events.OutputsTooLarge(max(growing, key=lambda it: self._unfinished[it].size, default="")))

    def wake_all(self) -> None:
        """So that readers that were sent nothing for a while send a heartbeat."""
        for stream in self._unfinished.values():
            stream.wake()
