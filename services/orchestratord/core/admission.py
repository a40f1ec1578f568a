"""The bounded queue: one class per priority, first come first served within a class."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llorch.errors import Reason, ResourceExhausted

MAX_RETRY_AFTER_MS = 60_000
DEFAULT_RETRY_AFTER_MS = 1_000


@dataclass(slots=True)
class DrainRate:
    """How fast tasks leave the queue: exponentially weighted mean of the time between two departures, in seconds."""

    weight: float = 0.2
    _last_at: float | None = None
    _interval_s: float | None = None

    def departed(self, now: float) -> None:
        if self._last_at is not None:
            interval = now - self._last_at
            known = self._interval_s
            self._interval_s = interval if known is None else known + self.weight * (interval - known)
        self._last_at = now

    def retry_after_ms(self) -> int:
        """Time until a place should be free, in ms; a second as long as nothing is known."""
        if self._interval_s is None:
            return DEFAULT_RETRY_AFTER_MS
        return max(1, min(round(self._interval_s * 1000), MAX_RETRY_AFTER_MS))


@dataclass(slots=True)
class AdmissionQueue:
    """Waiting tasks. `capacity` bounds each class; a task that returns after a lost attempt is let in over the bound.

    Tasks are kept by model as well, because what becomes free is always a slot of one model.
    """

    priorities: Sequence[str]
    capacity: int
    _arrivals: int = 0
    _classes: dict[str, OrderedDict[str, int]] = field(default_factory=dict)
    _by_model: dict[str, dict[str, OrderedDict[str, None]]] = field(default_factory=dict)
    _home: dict[str, tuple[str, str]] = field(default_factory=dict)
    rate: DrainRate = field(default_factory=DrainRate)

    def __post_init__(self) -> None:
        self._classes = {priority: OrderedDict() for priority in self.priorities}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._home

    def __len__(self) -> int:
        return len(self._home)

    def check_room(self, priority: str) -> None:
        """Refuse with a delay that follows from how fast the queue drains, if the class is full."""
        if len(self._classes[priority]) >= self.capacity:
            raise ResourceExhausted(
                Reason.QUEUE_FULL,
                f"the queue for priority '{priority}' is full ({self.capacity} tasks wait); try again later",
                retry_after_ms=self.rate.retry_after_ms(),
                metadata={"policy_label": "reject", "priority": priority},
            )

    def add(self, task_id: str, model: str, priority: str) -> None:
        self._arrivals += 1
        self._classes[priority][task_id] = self._arrivals
        self._by_model.setdefault(model, {}).setdefault(priority, OrderedDict())[task_id] = None
        self._home[task_id] = (priority, model)

    def remove(self, task_id: str) -> None:
        priority, model = self._home.pop(task_id)
        del self._classes[priority][task_id]
        classes = self._by_model[model]
        del classes[priority][task_id]
        if not classes[priority]:
            del classes[priority]
            if not classes:
                del self._by_model[model]

    def next_for(self, model: str) -> str | None:
        """The task that a free slot of `model` goes to: highest class first, longest waiting first."""
        classes = self._by_model.get(model, {})
        for priority in self.priorities:
            if waiting := classes.get(priority):
                return next(iter(waiting))
        return None

    def waiting_for(self, model: str) -> list[str]:
        classes = self._by_model.get(model, {})
        return [task_id for priority in self.priorities for task_id in classes.get(priority, ())]

    def models(self) -> Iterator[str]:
        """Models that somebody waits for, the longest waiting first within the highest class."""
        heads = (
            (self.priorities.index(priority), self._classes[priority][next(iter(waiting))], model)
            for model, classes in self._by_model.items()
            for priority, waiting in classes.items()
        )
        return iter(dict.fromkeys(model for _, _, model in sorted(heads)))

    def ahead(self, model: str, priority: str) -> int:
        """How many would go before a task that came now: those who wait for its model, in its class or a higher one."""
        classes = self._by_model.get(model, {})
        not_lower = self.priorities[: self.priorities.index(priority) + 1]
        return sum(len(classes.get(name, ())) for name in not_lower)

    def position(self, task_id: str) -> int:
        """How many tasks get a slot of its model before it. Linear: for reports, not for decisions."""
        _, model = self._home[task_id]
        return self.waiting_for(model).index(task_id)

    def depth(self, priority: str) -> int:
        return len(self._classes[priority])
