"""What has to happen later, ordered by time."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto


class TimerKind(Enum):
    DEADLINE = auto()
    HOPE = auto()
    LATEST_START = auto()
    SESSION = auto()
    READER_GRACE = auto()
    STOP = auto()
    RETENTION = auto()
    IDLE = auto()
    RESIDENCY = auto()
    EXPECTED = auto()
    LOOK_AGAIN = auto()
    MEMORY_BACK = auto()
    RETRY_LOAD = auto()
    FORGET_FAILURE = auto()
    NODE_GRACE = auto()
    RECOVERY_OVER = auto()
    RUNS_FOUND = auto()
    PRESSURE = auto()
    RESUME_DEVICE = auto()
    DRAIN_DEADLINE = auto()


@dataclass(slots=True)
class Timers:
    """At most one per kind and subject: the last call counts, and its handler checks whether it still matters.

    What has gone takes its timers along (`cancel`): a deadline may be weeks away.
    """

    _heap: list[tuple[float, int, TimerKind, str]] = field(default_factory=list)
    _set: dict[tuple[TimerKind, str], int] = field(default_factory=dict)
    """By kind and subject: the number of its entry. Another entry of it in the heap does not count any more."""
    _count: int = 0

    def at(self, when: float, kind: TimerKind, subject: str) -> None:
        self._count += 1
        self._set[kind, subject] = self._count
        heapq.heappush(self._heap, (when, self._count, kind, subject))
        self._drop_what_does_not_count()

    def cancel(self, subject: str, *kinds: TimerKind) -> None:
        """Idempotent."""
        for kind in kinds:
            self._set.pop((kind, subject), None)
        self._drop_what_does_not_count()

    def due(self, now: float) -> Iterator[tuple[TimerKind, str]]:
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if self._counts(entry):
                _, _, kind, subject = entry
                del self._set[kind, subject]
                yield kind, subject

    def __len__(self) -> int:
        return len(self._set)

    def _counts(self, entry: tuple[float, int, TimerKind, str]) -> bool:
        _, number, kind, subject = entry
        return self._set.get((kind, subject)) == number

    def _drop_what_does_not_count(self) -> None:
        """Once it is the larger part."""
        if len(self._heap) > 2 * len(self._set) + 16:
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapq.heapify(self._heap)
