"""The events of many tasks for one gateway, gathered into frames.

While a frame is written, events gather: the next one has what is new for all readers. No reader waits for another one
whose client is slow, since each is sent only so much ahead of what it has taken. What it has not been sent stays in the
log of its task, and comes in fewer and longer events.
"""

from collections.abc import Callable, Iterator

from llama_orch.v2 import delivery_service_pb2 as pb2
from llama_orch.v2 import task_event_pb2
from llorch.errors import Internal, LlorchError, Reason, invalid_field
from llorch.identifiers import new_id
from llorch.logs import get_logger
from llorch.rpc.slow_reader import slow_reader
from llorch.rpc.status import status_details
from orchestratord.runtime.task_reader import AttachedReader

AHEAD_BYTES = 16 * 1024
"""Of events, and the one that goes beyond it: what is under way to a reader, or waits for it in its gateway."""

FRAME_BYTES = 64 * 1024
"""A frame is closed with the event that goes beyond it, so that one reader's backlog does not hold up the others."""

_log = get_logger("orchestratord")


class Delivery:
    """`wake` is called when `next_frame` may have something. `slow_after_s`: a reader to which as much is under way as
    may be, and that takes nothing of it for so long, is given up.
    """

    def __init__(self, delivery_id: str, wake: Callable[[], None], slow_after_s: float) -> None:
        self.delivery_id = delivery_id
        self._wake = wake
        self._slow_after_s = slow_after_s
        self._readers: dict[int, _Reader] = {}
        self._with_news: dict[int, _Reader] = {}
        self._full: dict[int, _Reader] = {}
        """Those that are sent nothing before they have taken more, by when they last took something."""

    def __len__(self) -> int:
        return len(self._readers)

    def check_number(self, number: int) -> None:
        """Raises InvalidArgument where a reader has it."""
        if number in self._readers:
            raise invalid_field("reader", f"{number} is attached already; give each reader another number")

    def attach(self, number: int, attached: AttachedReader) -> None:
        """`number` has been checked."""
        reader = _Reader(number, attached, self._note)
        self._readers[number] = reader
        attached.reader.stream.watch(reader.woken)
        self._note(reader)

    def leave(self, number: int, *, may_return: bool = False) -> None:
        reader = self._readers.pop(number, None)
        if reader is None:
            return
        self._with_news.pop(number, None)
        self._full.pop(number, None)
        reader.attached.reader.stream.unwatch(reader.woken)
        reader.attached.leave(may_return)

    def break_off(self) -> None:
        """The gateway's line broke, or it ended: it has said of no reader that is left here that it has gone."""
        for number in tuple(self._readers):
            self.leave(number, may_return=True)

    def take(self, number: int, size: int, now: float) -> None:
        """The reader has taken so many bytes of what it was sent."""
        reader = self._readers.get(number)
        if reader is None:
            return
        reader.ahead = max(reader.ahead - size, 0)
        if self._full.pop(number, None) is None:
            return
        if reader.ahead < AHEAD_BYTES:
            self._note(reader)
        else:
            self._set_full(reader, now)

    def next_frame(self, now: float) -> pb2.DeliverResponse | None:
        """None where there is nothing to send."""
        frame, size = pb2.DeliverResponse(), 0
        self._give_up_slow(frame, now)
        while self._with_news and size < FRAME_BYTES:
            number = next(iter(self._with_news))
            reader = self._with_news.pop(number)
            size += self._fill(frame, reader, FRAME_BYTES - size, now)
        return frame if frame.delivered else None

    def _fill(self, frame: pb2.DeliverResponse, reader: "_Reader", room: int, now: float) -> int:
        """Adds what there is for a reader until that takes the `room`, in bytes. Returns how many it took."""
        size = 0
        while size < room:
            if reader.ahead >= AHEAD_BYTES:
                self._set_full(reader, now)
                return size
            try:
                event = reader.next_event(now)
            except Exception as error:  # noqa: BLE001  # it ends this reader's stream and no other
                self._fail(frame, reader.number, _told(error, reader.attached.correlation_id))
                return size
            if event is None:
                return size
            said = event.SerializeToString()
            is_last = reader.attached.reader.is_done
            frame.delivered.add(reader=reader.number, event=said, is_last=is_last)
            size += len(said)
            reader.ahead += len(said)
            if is_last:
                self.leave(reader.number)
                return size
        self._with_news[reader.number] = reader
        return size

    def _set_full(self, reader: "_Reader", now: float) -> None:
        reader.full_since = now
        self._full[reader.number] = reader

    def _give_up_slow(self, frame: pb2.DeliverResponse, now: float) -> None:
        while self._full:
            number, reader = next(iter(self._full.items()))
            if now - reader.full_since < self._slow_after_s:
                return
            self._fail(frame, number, slow_reader(self._slow_after_s))

    def _fail(self, frame: pb2.DeliverResponse, number: int, error: LlorchError) -> None:
        frame.delivered.add(reader=number, is_last=True, failure=status_details(error))
        self.leave(number)

    def _note(self, reader: "_Reader") -> None:
        if reader.number not in self._full:
            self._with_news[reader.number] = reader
            self._wake()


def _told(error: Exception, correlation_id: str) -> LlorchError:
    """As a call of its own would tell it."""
    if isinstance(error, LlorchError):
        return error
    error_id = new_id("err")
    _log.error("reader_failed", correlation_id=correlation_id, error_id=error_id, exc_info=error)
    return Internal(
        Reason.INTERNAL,
        f"an internal error ended this stream; the log of the orchestrator has the details under {error_id}",
        metadata={"error_id": error_id},
    )


class _Reader:
    """`ahead`: bytes that it was sent and has not taken."""

    __slots__ = ("_events", "_note", "ahead", "attached", "full_since", "number")

    def __init__(self, number: int, attached: AttachedReader, note: Callable[["_Reader"], None]) -> None:
        self.number = number
        self.attached = attached
        self.ahead = 0
        self.full_since = 0.0
        self._note = note
        self._events: Iterator[task_event_pb2.TaskEvent] | None = None

    def woken(self) -> None:
        self._note(self)

    def next_event(self, now: float) -> task_event_pb2.TaskEvent | None:
        """Goes on with what `TaskReader.take` began: what it gave is told once."""
        if self._events is None:
            self._events = self.attached.reader.take(now)
        event = next(self._events, None)
        if event is None:
            self._events = None
        return event
