"""Virtual time: what happens, in order."""

import heapq
from collections.abc import Callable

Action = Callable[[], object]


class Schedule:
    """A heap of (time, order of arrival, action). Two actions at one time happen in the order they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._count = 0

    def after(self, delay_s: float, action: Action) -> None:
        self.at(self.now + delay_s, action)

    def at(self, when: float, action: Action) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, action))

    def run_until(self, end: float) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = max(self.now, end)


class Wire:
    """A connection: messages come late, but never overtake one another. Cut it, and what is under way is lost."""

    def __init__(self, schedule: Schedule, delay_s: Callable[[], float]) -> None:
        self._schedule = schedule
        self._delay_s = delay_s
        self._last_arrival = 0.0
        self._is_cut = False

    def send(self, action: Action) -> None:
        self._last_arrival = max(self._last_arrival, self._schedule.now + self._delay_s())
        self._schedule.at(self._last_arrival, lambda: self._deliver(action))

    def cut(self) -> None:
        self._is_cut = True

    def _deliver(self, action: Action) -> None:
        if not self._is_cut:
            action()
