"""A reader of a task's stream: a cursor, and what the reader has not been sent yet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llama_orch.v2 import task_event_pb2
from llorch.errors import Reason, Unavailable
from orchestratord.convert import task_events
from orchestratord.convert.task_events import OutputWindow
from orchestratord.core.facts.task_log import Cursor
from orchestratord.runtime.task_streams import Note, TaskStream

HEARTBEAT_S = 10.0
METRICS_S = 1.0

END_KEPT_WITHIN_S = 5.0
"""A reader waits so long for the store to keep the end of its task. Readers are woken every two seconds."""
_RETRY_AFTER_MS = 1000

TakeMetrics = Callable[[], task_event_pb2.Metrics]


class TaskReader:
    """Gives events in order, each output once: Started, then where it runs, then output, then the terminal.

    With a cursor it goes on after it: Started again, the present place again, no old narration, no output twice.
    """

    def __init__(self, stream: TaskStream, after: str, now: float, metrics: TakeMetrics | None = None) -> None:
        self.stream = stream
        self._window = OutputWindow(stream.log)
        self._metrics = metrics
        cursor = Cursor.parse(after) if after else None
        self._seq = stream.resume_at(cursor) if cursor is not None else 0
        self._note = 0
        # Of a log that began anew meanwhile, the reader has heard nothing.
        self._is_resumed = cursor is not None and cursor.log_epoch == stream.log.log_epoch
        self._told_started = False
        self._last_told = now
        self._last_metrics = now
        self.is_done = False

    def take(self, now: float) -> Iterator[task_event_pb2.TaskEvent]:
        """Every event to send now; a heartbeat if there is none and was none for a while.

        Metrics come with other events, at most once a second, and in place of heartbeats.

        Raises Unavailable / STORE_FAILED, after all that there is, where the store has not kept the end of the task for
        long: it has ended, but no reader may hear how.
        """
        was_done = self.is_done
        told = False
        for event in self._fresh():
            told = True
            yield event
        is_silent = not told and not was_done and now - self._last_told >= HEARTBEAT_S
        if told or is_silent:
            self._last_told = now
            if self._metrics is not None and not self.is_done and now - self._last_metrics >= METRICS_S:
                self._last_metrics = now
                yield self._event(metrics=self._metrics())
            elif is_silent:
                yield self._event(heartbeat=task_event_pb2.Heartbeat())
        asked_at = self.stream.end_asked_at
        if asked_at is not None and not self.stream.has_ended and now - asked_at >= END_KEPT_WITHIN_S:
            raise Unavailable(
                Reason.STORE_FAILED,
                "the task has ended, and the orchestrator could not write that to its database yet; it goes on trying; "
                "read on after the cursor of the last event",
                retry_after_ms=_RETRY_AFTER_MS,
            )

    def _fresh(self) -> Iterator[task_event_pb2.TaskEvent]:
        if not self._told_started:
            self._told_started = True
            stream = self.stream
            yield task_events.started_to_proto(
                stream.request, self._cursor, stream.queue_position, stream.predicted_start_ms
            )
            if self._is_resumed:
                yield from self._present_place()
        log = self.stream.log
        while self._seq < len(log) or self._next_note() is not None:
            yield from self._notes_up_to(self._seq)
            if self._seq < len(log):
                end = task_events.run_length(self._window, self._seq, self._next_note_at(len(log)))
                yield task_events.tokens_to_proto(self.stream.request.task_id, self._window, self._seq, end)
                self._seq = end
        if not self.is_done and (terminal := self.stream.terminal) is not None:
            self.is_done = True
            yield terminal

    def _next_note(self) -> Note | None:
        """The oldest that the reader has not been sent, of those that are still there."""
        stream = self.stream
        self._note = max(self._note, stream.notes_dropped)
        at = self._note - stream.notes_dropped
        return stream.notes[at] if at < len(stream.notes) else None

    def _notes_up_to(self, seq: int) -> Iterator[task_event_pb2.TaskEvent]:
        while (note := self._next_note()) is not None and note.at_seq <= seq:
            self._note += 1
            yield self._say(note)

    def _next_note_at(self, end: int) -> int:
        """Output is sent up to the next note, then the note."""
        note = self._next_note()
        return end if note is None else min(end, note.at_seq)

    def _present_place(self) -> Iterator[task_event_pb2.TaskEvent]:
        """Skip the notes that an earlier stream has sent, but for the place where the task runs now."""
        place = self.stream.place_dropped
        while (note := self._next_note()) is not None and note.at_seq <= self._seq:
            place = note if note.is_place else place
            self._note += 1
        if place is not None:
            yield self._say(place)

    def _say(self, note: Note) -> task_event_pb2.TaskEvent:
        if note.is_place:
            return self._event(placed=task_event_pb2.Placed.FromString(note.said))
        return self._event(narration=task_event_pb2.Narration.FromString(note.said))

    def _event(
        self,
        placed: task_event_pb2.Placed | None = None,
        narration: task_event_pb2.Narration | None = None,
        heartbeat: task_event_pb2.Heartbeat | None = None,
        metrics: task_event_pb2.Metrics | None = None,
    ) -> task_event_pb2.TaskEvent:
        return task_event_pb2.TaskEvent(
            task_id=self.stream.request.task_id,
            cursor=str(self._cursor),
            placed=placed,
            narration=narration,
            heartbeat=heartbeat,
            metrics=metrics,
        )

    @property
    def _cursor(self) -> Cursor:
        return self.stream.log.cursor_at(self._seq)


@dataclass(frozen=True, slots=True)
class AttachedReader:
    """`leave` is to be called once, with whether the reader's line broke: a task that does not outlive its readers is
    cancelled after the last one, and later where that one may return.
    """

    reader: TaskReader
    leave: Callable[[bool], None]
    correlation_id: str = ""
    """Of the request that it is attached for."""
