"""The bounded queue: which tasks wait, which is next, and which is refused or dropped.

Classes go first, the highest before the others, but a lower class is passed over for `max_starvation_s` at most. Within
a class apps share by weight (`fair_queue`). What is shared is the slots of a model, so all of this is kept by model.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from llorch.errors import Reason, ResourceExhausted
from orchestratord.core.facts.backlog import OPEN, Backlog, Line, TaskSize
from orchestratord.core.facts.fair_queue import Allowance, FairQueue, no_limit
from orchestratord.core.learnt.drain_rate import DrainRate


class QueuePolicy(StrEnum):
    """What happens to a task that comes when its class is full."""

    REJECT = "reject"
    """It is refused with a delay after which to come back."""
    DROP_LRU = "drop-lru"
    """The task that has waited longest in the lowest class is dropped for it, or more, if it needs their bytes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where a task waits. `arrival` orders all tasks; `lane` stands for the workers that it may run on. `size` is what
    it holds of memory as long as it waits, in bytes; `work` how much of a worker it will take.
    """

    model: str
    priority: str
    app: str
    lane: Hashable
    arrival: int
    size: int = 0
    work: TaskSize = OPEN


def _small_and_new_first(victim: tuple[Waiting, str]) -> tuple[int, int]:
    place, _ = victim
    return place.size, -place.arrival


@dataclass(slots=True)
class _Class:
    """One priority: how many tasks wait, with how many bytes, and the arrival order of those that may be dropped."""

    depth: int = 0
    size: int = 0
    droppable: OrderedDict[str, None] = field(default_factory=OrderedDict)
    rate: DrainRate = field(default_factory=DrainRate)


@dataclass(frozen=True, slots=True)
class _Excess:
    """How many tasks, and how many bytes, are too many; not above 0 for none."""

    tasks: int
    size: int

    def __bool__(self) -> bool:
        return self.tasks > 0 or self.size > 0

    def without(self, size: int) -> "_Excess":
        return _Excess(self.tasks - 1, self.size - size)

    def with_again(self, size: int) -> "_Excess":
        return _Excess(self.tasks + 1, self.size + size)


@dataclass(slots=True)
class AdmissionQueue:
    """Waiting tasks. `capacity`, in tasks, and `capacity_bytes` bound each class; under drop-lru they bound all of them
    together, with so much for each.

    `now` is the brain's clock, `weights` has the apps whose weight is not 1, `held` the apps that may not start tasks.
    """

    priorities: Sequence[str]
    capacity: int
    policy: QueuePolicy = QueuePolicy.REJECT
    max_starvation_s: float = 60.0
    capacity_bytes: int = 128 * 2**20
    now: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    _unkept: dict[str, int] = field(default_factory=dict)
    """Tasks that the store does not have yet, with their sizes."""
    _arrivals: int = 0
    _places: dict[str, Waiting] = field(default_factory=dict)
    _classes: dict[str, _Class] = field(default_factory=dict)
    _by_model: dict[str, dict[str, FairQueue]] = field(default_factory=dict)
    _waiting_of_app: dict[str, dict[str, int]] = field(default_factory=dict)
    _lines: dict[tuple[str, str], dict[str, Line]] = field(default_factory=dict)
    """By model and class: what waits of each app."""

    def __post_init__(self) -> None:
        self._classes = {priority: _Class() for priority in self.priorities}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, task_id: str) -> Waiting:
        return self._places[task_id]

    def make_room(self, priority: str, size: int = 0) -> list[str]:
        """Make room for one more task, of so many bytes.

        Returns the tasks that have to be dropped for it. Raises ResourceExhausted with a delay that follows from how
        fast the class drains.
        """
        excess = self._excess(priority, size, is_there=False)
        if not excess:
            return []
        victims = self._victims(priority, excess) if self._may_drop else []
        if not victims:
            raise self._no_room(priority)
        return victims

    def too_many(self, task_id: str) -> list[str]:
        """Under drop-lru: the tasks that have to be dropped for this one, which was added without making room. None if
        that would not do: it stays all the same.
        """
        place = self._places[task_id]
        excess = self._excess(place.priority, place.size, is_there=True)
        if self.policy is not QueuePolicy.DROP_LRU or not excess:
            return []
        return self._victims(place.priority, excess, newcomer=task_id)

    def add(
        self,
        task_id: str,
        model: str,
        priority: str,
        *,
        app: str = "",
        lane: Hashable = None,
        arrival: int | None = None,
        unkept: bool = False,
        size: int = 0,
        work: TaskSize = OPEN,
    ) -> None:
        """A task begins to wait. With the `arrival` of an earlier wait it gets its old place, and can't be dropped.

        `unkept`: the store does not have it yet, until `answered`. It has its place, but gets no slot: others pass it
        meanwhile. Nothing is loaded, and no worker leaves, for such tasks alone.
        """
        if unkept:
            self._unkept[task_id] = size
        if arrival is None:
            self._arrivals += 1
            self._classes[priority].droppable[task_id] = None
        place = Waiting(model, priority, app, lane, self._arrivals if arrival is None else arrival, size, work)
        self._places[task_id] = place
        self._classes[priority].depth += 1
        self._classes[priority].size += size
        of_app = self._waiting_of_app.setdefault(app, {})
        of_app[model] = of_app.get(model, 0) + 1
        self._lines.setdefault((model, priority), {}).setdefault(app, Line()).add(place.arrival, work)
        is_unkept = task_id in self._unkept
        self._queue(model, priority).add(task_id, app, lane, place.arrival, self.now, unkept=is_unkept)

    def remove(self, task_id: str) -> Waiting:
        """The task stops waiting: it gets a slot, or ends without one."""
        place = self._places.pop(task_id)
        self._by_model[place.model][place.priority].remove(task_id, place.app, place.lane)
        of_app = self._waiting_of_app[place.app]
        of_app[place.model] -= 1
        if not of_app[place.model]:
            del of_app[place.model]
        if not of_app:
            del self._waiting_of_app[place.app]
        self._leave_line(place)
        of_class = self._classes[place.priority]
        of_class.depth -= 1
        of_class.size -= place.size
        of_class.droppable.pop(task_id, None)
        of_class.rate.departed(self.now)
        return place

    def answered(self, task_id: str) -> None:
        """The store has the task now, or never will."""
        if self._unkept.pop(task_id, None) is None:
            return
        if place := self._places.get(task_id):
            self._queue(place.model, place.priority).kept(task_id, place.app, place.lane)

    def take(self, task_id: str, tokens: int) -> Waiting:
        """The task gets a slot, and its app is charged with the tokens that it will probably need."""
        place = self.remove(task_id)
        self.charge(place, tokens)
        return place

    def charge(self, place: Waiting, tokens: int) -> None:
        queue = self._by_model[place.model][place.priority]
        queue.charge(place.app, tokens, self.weights.get(place.app, 1.0), self.now)

    def settle(self, place: Waiting, charged: int, served: int) -> None:
        """The work is done: the app pays for what it got, not for what was expected."""
        queue = self._by_model.get(place.model, {}).get(place.priority)
        if queue is not None:
            queue.correct(place.app, served - charged, self.weights.get(place.app, 1.0))

    def forget_model(self, model: str) -> None:
        """It is in the catalog no more. What still waits for it goes on doing so, and is forgotten with its end."""
        if not self.has_waiting(model):
            self._by_model.pop(model, None)

    def forget_app(self, app: str) -> None:
        """No app has this name any more."""
        self.weights.pop(app, None)
        self.held.discard(app)
        for queues in self._by_model.values():
            for queue in queues.values():
                queue.forget(app)

    def has_lane(self, place: Waiting) -> bool:
        """Whether a task still waits in the lane of one that waited there."""
        return any(queue.has_lane(place.lane) for queue in self._by_model.get(place.model, {}).values())

    def has_waiting(self, model: str) -> bool:
        return any(map(len, self._by_model.get(model, {}).values()))

    def count(self, model: str, allowance: Allowance = no_limit) -> float:
        """Tasks that wait for the model, and that could start if they had slots."""
        return sum(queue.startable(allowance) for queue in self._by_model.get(model, {}).values())

    def waiting_of_app(self, app: str) -> Mapping[str, int]:
        """By model."""
        return self._waiting_of_app.get(app, {})

    def heads(self, model: str) -> Iterator[str]:
        """The tasks that may be next for a free slot of `model`, in order: one per class, app and lane. None that the
        store does not have.

        A change to the queue invalidates the iteration; ask again after it.
        """
        for queue in self._in_turn(model):
            yield from queue.in_order(self.held)

    def waiting_for(self, model: str) -> list[str]:
        """All tasks that wait for it, by class and arrival. Linear."""
        queues = self._by_model.get(model, {})
        return [task_id for name in self.priorities if (queue := queues.get(name)) for task_id in queue.by_arrival()]

    def lanes_of(self, model: str, allowance: Allowance = no_limit) -> list[Hashable]:
        """The lanes of tasks that could start if they had slots: for those the model may be loaded."""
        return list(dict.fromkeys(lane for queue in self._in_turn(model) for lane in queue.lanes(allowance)))

    def models(self) -> Iterator[str]:
        """Models that tasks wait for, the longest waiting first within the highest class."""
        firsts = (
            (self.priorities.index(priority), queue.first_arrival(), model)
            for model, queues in self._by_model.items()
            for priority, queue in queues.items()
            if len(queue)
        )
        return iter(dict.fromkeys(model for _, _, model in sorted(firsts)))

    def models_of_app(self, app: str) -> list[str]:
        """Models that tasks of this app wait for."""
        return sorted(self._waiting_of_app.get(app, ()))

    def ahead(self, model: str, priority: str, app: str = "") -> Backlog:
        """About the tasks that would get a slot of the model before a task that came now."""
        own = Backlog()
        if line := self._lines_of(model, priority).get(app):
            own.join(line.whole)
        return self._before(model, priority, app, own)

    def before(self, task_id: str) -> Backlog:
        """About the tasks that get a slot of its model before it. Linear: for reports, not for decisions."""
        place = self._places[task_id]
        own = self._lines_of(place.model, place.priority)[place.app].before(place.arrival)
        return self._before(place.model, place.priority, place.app, own)

    def depth(self, priority: str) -> int:
        return self._classes[priority].depth

    def size(self, priority: str) -> int:
        """In bytes."""
        return self._classes[priority].size

    def _queue(self, model: str, priority: str) -> FairQueue:
        return self._by_model.setdefault(model, {}).setdefault(priority, FairQueue())

    def _lines_of(self, model: str, priority: str) -> Mapping[str, Line]:
        """By app."""
        return self._lines.get((model, priority), {})

    def _in_turn(self, model: str) -> list[FairQueue]:
        """The model's queues that are not empty: those that were passed over for too long first."""
        queues = self._by_model.get(model, {})
        by_class = [queue for name in self.priorities if (queue := queues.get(name)) and len(queue)]
        overdue = [queue for queue in by_class[1:] if self._is_overdue(queue)]
        return [*overdue, *(queue for queue in by_class if queue not in overdue)] if overdue else by_class

    def _is_overdue(self, queue: FairQueue) -> bool:
        return self.now - queue.unserved_since >= self.max_starvation_s

    def _before(self, model: str, priority: str, app: str, own: Backlog) -> Backlog:
        """With `own` tasks of its app before it, to which the rest is added; the other apps get their share of the
        slots meanwhile.
        """
        turns, weight = own.tasks + 1, self.weights.get(app, 1.0)
        for name in self.priorities[: self.priorities.index(priority)]:
            for line in self._lines_of(model, name).values():
                own.join(line.whole)
        for other, line in self._lines_of(model, priority).items():
            if other != app:
                waiting = line.whole.tasks
                own.join(line.whole, min(waiting, int(turns * self.weights.get(other, 1.0) / weight)) / waiting)
        return own

    @property
    def _may_drop(self) -> bool:
        """What the store does not have yet drops none, so there may be only as much of it as of the rest."""
        classes = len(self.priorities)
        has_room = len(self._unkept) < self.capacity * classes
        return (
            self.policy is QueuePolicy.DROP_LRU
            and has_room
            and sum(self._unkept.values()) < self.capacity_bytes * classes
        )

    def _leave_line(self, place: Waiting) -> None:
        of_apps = self._lines[place.model, place.priority]
        of_apps[place.app].remove(place.arrival)
        if not of_apps[place.app]:
            del of_apps[place.app]
        if not of_apps:
            del self._lines[place.model, place.priority]

    def _excess(self, priority: str, size: int, *, is_there: bool) -> "_Excess":
        """How much is too much with a task of so many bytes: no more than that task itself. What came back into the
        queue beyond its capacity is not its to make up for.
        """
        shares_all = self.policy is QueuePolicy.DROP_LRU
        classes = list(self._classes.values()) if shares_all else [self._classes[priority]]
        more, more_size = (0, 0) if is_there else (1, size)
        tasks = sum(one.depth for one in classes) + more - self.capacity * len(classes)
        in_all = sum(one.size for one in classes) + more_size - self.capacity_bytes * len(classes)
        return _Excess(min(1, tasks), min(size, in_all))

    def _victims(self, priority: str, excess: "_Excess", newcomer: str = "") -> list[str]:
        """The tasks that wait longest in the lowest class, up to those that make room; never one of a higher class than
        that of the newcomer. None if that is not enough.
        """
        victims: list[str] = []
        not_higher = self.priorities[self.priorities.index(priority) :]
        for name in reversed(not_higher):
            for task_id in self._classes[name].droppable:
                if task_id == newcomer:
                    continue
                victims.append(task_id)
                excess = excess.without(self._places[task_id].size)
                if not excess:
                    return self._needed(victims, excess)
        return []

    def _needed(self, victims: list[str], left: "_Excess") -> list[str]:
        """The fewest of them that make room: small ones may stay where large ones go, the newest first. `left` is below
        0 by what is more than enough.
        """
        spared = set()
        for place, task_id in sorted(((self._places[it], it) for it in victims), key=_small_and_new_first):
            left = left.with_again(place.size)
            if left:
                break
            spared.add(task_id)
        return [task_id for task_id in victims if task_id not in spared]

    def _no_room(self, priority: str) -> ResourceExhausted:
        rate = self._classes[priority].rate
        rate.refused()
        return ResourceExhausted(
            Reason.QUEUE_FULL,
            f"the queue for priority '{priority}' is full: {self.depth(priority)} of {self.capacity} tasks "
            f"(queue_capacity) wait, with {self.size(priority) / 2**20:.1f} of {self.capacity_bytes / 2**20:g} MiB "
            "(queue_mib); try again later",
            retry_after_ms=rate.retry_after_ms(self.now),
            metadata={"policy_label": self.policy.value, "priority": priority},
        )
