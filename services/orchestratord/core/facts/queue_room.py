"""The room in the queue: who gets in, who is refused, and who is dropped.

Apps share it: a full queue is full for those that filled it. One that has less than an equal part of it waiting gets in
all the same, so n apps hold 1 + 1/2 + … + 1/n times the capacity at most, which is 5 times for a hundred of them.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from llorch.errors import Reason, ResourceExhausted
from orchestratord.core.facts.returns import Returns


class QueuePolicy(StrEnum):
    """What happens to a task that comes when its class is full."""

    REJECT = "reject"
    """It is refused with a delay after which to come back."""
    DROP_LRU = "drop-lru"
    """The task that has waited longest in the lowest class, of the app with most of the queue, is dropped for it; or
    more, if it needs their bytes.
    """


@dataclass(frozen=True, slots=True)
class Amount:
    """So many tasks, and so many bytes. Of what is too much: not above 0 for none."""

    tasks: int = 0
    size: int = 0

    def __bool__(self) -> bool:
        return self.tasks > 0 or self.size > 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tasks + other.tasks, self.size + other.size)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tasks - other.tasks, self.size - other.size)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class _Droppable:
    task_id: str
    arrival: int
    amount: Amount


@dataclass(slots=True)
class _OfApp:
    """What waits of an app in a class. `droppable` are its tasks that may be dropped, in the order of their arrival."""

    amount: Amount = NOTHING
    droppable: OrderedDict[str, _Droppable] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _Class:
    """One priority: what waits in it, how much of that is of which app, and who was told to come back."""

    amount: Amount = NOTHING
    apps: dict[str, _OfApp] = field(default_factory=dict)
    returns: dict[str, Returns] = field(default_factory=dict)
    """By app."""

    def of(self, app: str) -> Amount:
        return self.apps[app].amount if app in self.apps else NOTHING


class Prospect(Protocol):
    """What is known of a task that comes, beside the queue. Asked only if there is no place for it."""

    def starts_at_once(self) -> bool:
        """There is a slot for it, so it needs no place in the queue."""
        ...

    def first_place_s(self) -> float:
        """When the first task that waits is expected to start; 0 if that is not known."""
        ...


class _NothingKnown:
    def starts_at_once(self) -> bool:
        return False

    def first_place_s(self) -> float:
        return 0.0


NOTHING_KNOWN = _NothingKnown()


@dataclass(slots=True)
class QueueRoom:
    """`capacity`, in tasks, and `capacity_bytes` bound each class; under drop-lru they bound all of them together, with
    so much for each.
    """

    priorities: Sequence[str]
    capacity: int
    policy: QueuePolicy
    capacity_bytes: int
    _classes: dict[str, _Class] = field(init=False)

    def __post_init__(self) -> None:
        self._classes = {priority: _Class() for priority in self.priorities}

    def make_room(
        self, priority: str, size: int, app: str, now: float, unkept: Mapping[str, int], prospect: Prospect
    ) -> list[str]:
        """As `AdmissionQueue.make_room`. `unkept` has the sizes of the tasks that the store does not have yet."""
        newcomer = Amount(1, size)
        excess = self._excess(priority, newcomer)
        returns = self._returns(priority, app)
        left, capacity = self._left(priority, app)
        may_have = returns.may_have(now, left, capacity)
        if (may_have and not excess) or prospect.starts_at_once():
            return []
        victims = self._victims(priority, app, excess, newcomer) if excess and self._may_drop(unkept) else []
        if victims or (may_have and not self._over(priority, app, newcomer)):
            return victims
        raise self._no_room(priority, app, returns.refused(now, prospect.first_place_s()))

    def too_many(self, task_id: str, priority: str, app: str, size: int) -> list[str]:
        """As `AdmissionQueue.too_many`."""
        excess = self._excess(priority, Amount(1, size), is_there=True)
        if self.policy is not QueuePolicy.DROP_LRU or not excess:
            return []
        return self._victims(priority, app, excess, NOTHING, task_id)

    def add(self, task_id: str, priority: str, app: str, size: int, arrival: int, now: float, *, may_go: bool) -> None:
        """A task begins to wait. `may_go`: it can be dropped."""
        amount, of_class = Amount(1, size), self._classes[priority]
        of_app = of_class.apps.setdefault(app, _OfApp())
        if not of_app.amount.tasks:
            self._returns(priority, app).began(now)
        of_class.amount, of_app.amount = of_class.amount + amount, of_app.amount + amount
        if may_go:
            of_app.droppable[task_id] = _Droppable(task_id, arrival, amount)

    def remove(self, task_id: str, priority: str, app: str, size: int, now: float) -> None:
        amount, of_class = Amount(1, size), self._classes[priority]
        of_app = of_class.apps[app]
        of_class.amount, of_app.amount = of_class.amount - amount, of_app.amount - amount
        of_app.droppable.pop(task_id, None)
        if not of_app.amount.tasks:
            del of_class.apps[app]
        self._returns(priority, app).departed(now, others_wait=app in of_class.apps)

    def forget_app(self, app: str) -> None:
        """None of its tasks waits, and no further one comes."""
        for of_class in self._classes.values():
            of_class.returns.pop(app, None)

    def amount(self, priority: str) -> Amount:
        """What waits."""
        return self._classes[priority].amount

    def _returns(self, priority: str, app: str) -> Returns:
        of_class = self._classes[priority]
        if app not in of_class.returns:
            of_class.returns[app] = Returns()
        return of_class.returns[app]

    def _sharing(self, priority: str) -> list[_Class]:
        """The classes that have their room together with this one."""
        return list(self._classes.values()) if self.policy is QueuePolicy.DROP_LRU else [self._classes[priority]]

    def _left(self, priority: str, app: str) -> tuple[int, int]:
        """Tasks of the app for which there is room, in all of it or in its part, and those that it all is for."""
        classes = self._sharing(priority)
        capacity = self.capacity * len(classes)
        left = capacity - sum(one.amount.tasks for one in classes)
        return max(left, -self._over(priority, app).tasks), capacity

    def _excess(self, priority: str, newcomer: Amount, *, is_there: bool = False) -> Amount:
        """How much is too much with such a task: no more than that task itself. What came back into the queue beyond
        its capacity is not its to make up for.
        """
        classes = self._sharing(priority)
        amount = sum((one.amount for one in classes), NOTHING if is_there else newcomer)
        tasks, size = amount.tasks - self.capacity * len(classes), amount.size - self.capacity_bytes * len(classes)
        return Amount(min(1, tasks), min(newcomer.size, size))

    def _over(self, priority: str, app: str, more: Amount = NOTHING) -> Amount:
        """How much more than its part the app has, with so much more: the room is for all apps that wait alike."""
        classes = self._sharing(priority)
        apps = len({app}.union(*(one.apps for one in classes)))
        tasks, size = self.capacity * len(classes) // apps, self.capacity_bytes * len(classes) // apps
        return sum((one.of(app) for one in classes), more) - Amount(max(1, tasks), size)

    def _may_drop(self, unkept: Mapping[str, int]) -> bool:
        """What the store does not have yet drops none, so there may be only as much of it as of the rest."""
        if self.policy is not QueuePolicy.DROP_LRU:
            return False
        classes = len(self.priorities)
        return len(unkept) < self.capacity * classes and sum(unkept.values()) < self.capacity_bytes * classes

    def _victims(self, priority: str, app: str, excess: Amount, more: Amount, newcomer: str = "") -> list[str]:
        """Tasks of the apps that have more than their part, as the newcomer's app may have with so much `more`: always
        of the one that is furthest above, and of that the longest waiting of its lowest class. Never those of a higher
        class than the newcomer's. None if that is not enough.
        """
        not_above = self.priorities[self.priorities.index(priority) :]
        names = sorted({name for one in not_above for name in self._classes[one].apps})
        lines = {name: self._droppable(not_above, name, newcomer) for name in names}
        over = {name: self._over(priority, name, more if name == app else NOTHING) for name in names}
        victims: list[_Droppable] = []
        while excess:
            name = max(lines, key=lambda it: (self._weighed(over[it], excess), it == app), default="")
            if name not in lines or self._weighed(over[name], excess) <= 0:
                return []
            victim = next(lines[name], None)
            if victim is None:
                del lines[name]
                continue
            victims.append(victim)
            over[name], excess = over[name] - victim.amount, excess - victim.amount
        return self._needed(victims, excess)

    def _weighed(self, over: Amount, excess: Amount) -> float:
        """By what there is too much of."""
        tasks = over.tasks / self.capacity if excess.tasks > 0 else 0.0
        return max(tasks, over.size / self.capacity_bytes if excess.size > 0 else 0.0)

    def _droppable(self, not_above: Sequence[str], app: str, newcomer: str) -> Iterator[_Droppable]:
        for priority in reversed(not_above):
            of_app = self._classes[priority].apps.get(app)
            yield from (it for it in (of_app.droppable.values() if of_app else ()) if it.task_id != newcomer)

    def _needed(self, victims: list[_Droppable], left: Amount) -> list[str]:
        """The fewest of them that make room: small ones may stay where large ones go, the newest first. `left` is below
        0 by what is more than enough.
        """
        spared = set()
        for victim in sorted(victims, key=lambda it: (it.amount.size, -it.arrival)):
            left += victim.amount
            if left:
                break
            spared.add(victim.task_id)
        return [it.task_id for it in victims if it.task_id not in spared]

    def _no_room(self, priority: str, app: str, retry_after_ms: int) -> ResourceExhausted:
        waiting = self._classes[priority].amount
        return ResourceExhausted(
            Reason.QUEUE_FULL,
            f"the queue for priority '{priority}' is full: {waiting.tasks} of {self.capacity} tasks (queue_capacity) "
            f"wait, with {waiting.size / 2**20:.1f} of {self.capacity_bytes / 2**20:g} MiB (queue_mib)"
            f"{self._told_part(priority, app)}; try again later",
            retry_after_ms=retry_after_ms,
            metadata={"policy_label": self.policy.value, "priority": priority},
        )

    def _told_part(self, priority: str, app: str) -> str:
        """To an app that shares the room with others, and has its part of it."""
        classes = self._sharing(priority)
        others = set[str]().union(*(one.apps for one in classes)) - {app}
        own = sum((one.of(app) for one in classes), NOTHING)
        if not others or not own:
            return ""
        told = f"{own.tasks} of them, with {own.size / 2**20:.1f} MiB, are of the app that asks"
        return f"; {told}, which is its part of the room for {len(others) + 1} apps"
