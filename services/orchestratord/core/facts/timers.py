"""What has to happen later, ordered by time."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto


class TimerKind(Enum):
    DEADLINE = auto()
    LATEST_START = auto()
    SESSION = auto()
    READER_GRACE = auto()
    STOP = auto()
    RETENTION = auto()
    IDLE = auto()
    RESIDENCY = auto()
    LOOK_AGAIN = auto()
    MEMORY_BACK = auto()
    RETRY_LOAD = auto()
    FORGET_FAILURE = auto()
    NODE_GRACE = auto()
    RECOVERY_OVER = auto()
    PRESSURE = auto()
    RESUME_DEVICE = auto()
    DRAIN_DEADLINE = auto()


@dataclass(slots=True)
class Timers:
    """A heap of (time, kind, subject). A timer is never cancelled: its handler checks whether it still matters."""

    _heap: list[tuple[float, int, TimerKind, str]] = field(default_factory=list)
    _count: int = 0

    def at(self, when: float, kind: TimerKind, subject: str) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, kind, subject))

    def due(self, now: float) -> Iterator[tuple[TimerKind, str]]:
        while self._heap and self._heap[0][0] <= now:
            _, _, kind, subject = heapq.heappop(self._heap)
            yield kind, subject

    def __len__(self) -> int:
        return len(self._heap)
