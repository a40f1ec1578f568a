"""Which task is next among those that wait for one model in one class.

Those of the app that has had least of the GPUs for its weight go first (`accounts`); within an app the one that is due
first, and of those that are due together the one that came first. A deadline is no use against other apps.
"""

import heapq
import math
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field

Allowance = Callable[[str], float]
"""How many more tasks of an app may start, below 1 for none."""


ARRIVAL_BITS = 48
"""The last ones of a turn."""

_LATEST_S = 1e10
"""Deadlines beyond are alike."""


def turn_of(due_at: float, arrival: int) -> int:
    """A number that orders the tasks of an app: by when they are due, to a tenth of a second, then by arrival."""
    return (round(min(due_at, _LATEST_S) * 10) << ARRIVAL_BITS) + arrival


def arrival_of(turn: int) -> int:
    return turn & ((1 << ARRIVAL_BITS) - 1)


def no_limit(_: str) -> float:
    return math.inf


@dataclass(slots=True)
class AppTurn:
    """Tasks of one app that may run on the same workers, that is of one lane, by their turns."""

    _heap: list[tuple[int, str]] = field(default_factory=list)
    """Of those that may start."""
    _turn: dict[str, int] = field(default_factory=dict)
    _unkept: dict[str, int] = field(default_factory=dict)
    """Those of `_turn` that may not start yet: the store does not have them."""

    def __len__(self) -> int:
        return len(self._turn)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return iter((turn, task_id) for task_id, turn in self._turn.items())

    @property
    def startable(self) -> int:
        """How many may start."""
        return len(self._turn) - len(self._unkept)

    def add(self, task_id: str, turn: int, *, unkept: bool = False) -> None:
        self._turn[task_id] = turn
        if unkept:
            self._unkept[task_id] = turn
        else:
            heapq.heappush(self._heap, (turn, task_id))

    def change(self, task_id: str, turn: int) -> None:
        if task_id in self._unkept:
            self._turn[task_id] = self._unkept[task_id] = turn
        else:
            self.add(task_id, turn)

    def kept(self, task_id: str) -> None:
        """One that was added as unkept may start, at the place that it has."""
        heapq.heappush(self._heap, (self._unkept.pop(task_id), task_id))

    def remove(self, task_id: str) -> None:
        """What was removed, or changed, stays in the heap until it comes up, or until it is the larger part."""
        del self._turn[task_id]
        self._unkept.pop(task_id, None)
        if len(self._heap) > 2 * len(self._turn) + 16:
            self._heap = [(turn, it) for it, turn in self._turn.items() if it not in self._unkept]
            heapq.heapify(self._heap)

    def first(self) -> tuple[int, str] | None:
        """(turn, task id) of the first of those that may start."""
        while self._heap and self._turn.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None


@dataclass(slots=True, eq=False)
class FairQueue:
    """`unserved_since`: when the last of its tasks got a slot, or when the queue last became non-empty. `running` of
    its tasks hold slots; `left_at`: when the last of them ended. `charged_s`: the device-seconds that an app was
    charged with for the last one.
    """

    unserved_since: float = 0.0
    running: int = 0
    left_at: float = 0.0
    charged_s: float = 0.0
    _lanes: dict[str, dict[Hashable, AppTurn]] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, task_id: str, app: str, lane: Hashable, turn: int, now: float, *, unkept: bool = False) -> None:
        """`unkept`: it has its place, and is not the next one before it is `kept`."""
        if not self._count:
            self.unserved_since = now
        self._lanes.setdefault(app, {}).setdefault(lane, AppTurn()).add(task_id, turn, unkept=unkept)
        self._count += 1

    def run_begins(self, now: float, device_s: float) -> None:
        self.running += 1
        self.unserved_since, self.charged_s = now, device_s

    def run_ends(self, now: float) -> None:
        """It may have begun before this queue was there, where the model was deleted and came back."""
        self.running = max(0, self.running - 1)
        self.left_at = now

    def without_slot_s(self, now: float) -> float:
        """For how long the class has had no slot of the model, and wanted one."""
        return 0.0 if self.running else now - max(self.unserved_since, self.left_at)

    def kept(self, task_id: str, app: str, lane: Hashable) -> None:
        self._lanes[app][lane].kept(task_id)

    def change(self, task_id: str, app: str, lane: Hashable, turn: int) -> None:
        self._lanes[app][lane].change(task_id, turn)

    def remove(self, task_id: str, app: str, lane: Hashable) -> None:
        lanes = self._lanes[app]
        lanes[lane].remove(task_id)
        if not lanes[lane]:
            del lanes[lane]
        if not lanes:
            del self._lanes[app]
        self._count -= 1

    def in_order(self, time_of: Callable[[str], float], held: Collection[str] = ()) -> Iterator[str]:
        """The first task of every lane that may start, those of the app whose account is furthest behind first; `held`
        apps left out.
        """
        apps = []
        for app, lanes in self._lanes.items():
            heads = [] if app in held else sorted(first for turn in lanes.values() if (first := turn.first()))
            if heads:
                apps.append((time_of(app), min(arrival_of(turn) for turn, _ in heads), heads))
        apps.sort()
        return (task_id for _, _, heads in apps for _, task_id in heads)

    def by_arrival(self) -> list[str]:
        """All of them; linear, for reports and for messages to all."""
        return [task_id for _, task_id in sorted((arrival_of(turn), task_id) for turn, task_id in self._waiting())]

    def has_lane(self, lane: Hashable) -> bool:
        return any(lane in lanes for lanes in self._lanes.values())

    def lanes(self, allowance: Allowance = no_limit) -> Iterator[Hashable]:
        """Those with tasks that may start."""
        return (
            lane
            for app, lanes in self._lanes.items()
            if allowance(app) >= 1
            for lane, turn in lanes.items()
            if turn.startable
        )

    def startable(self, allowance: Allowance = no_limit) -> float:
        """How many of the tasks may start, if they had slots."""
        return sum(
            min(sum(turn.startable for turn in lanes.values()), max(0.0, allowance(app)))
            for app, lanes in self._lanes.items()
        )

    def alike(self, app: str, lane: Hashable) -> int:
        """How many of the app and lane may start."""
        return self._lanes[app][lane].startable

    def _waiting(self) -> Iterator[tuple[int, str]]:
        return (entry for lanes in self._lanes.values() for turn in lanes.values() for entry in turn)
