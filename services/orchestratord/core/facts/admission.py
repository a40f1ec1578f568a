"""The bounded queue: which tasks wait, which is next, and which is refused or dropped.

Classes go first, the highest before the others, but a lower class is passed over for `max_starvation_s` at most. Within
a class apps share the GPUs by weight (`accounts`). Tasks get slots of a model, so what waits is kept by model.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestratord.core.facts.accounts import Accounts
from orchestratord.core.facts.backlog import OPEN, Backlog, Line, TaskSize
from orchestratord.core.facts.fair_queue import Allowance, FairQueue, no_limit, turn_of
from orchestratord.core.facts.queue_room import NOTHING_KNOWN, Prospect, QueuePolicy, QueueRoom


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where a task waits. `arrival` orders all tasks; `lane` stands for the workers that it may run on. `size` is what
    it holds of memory as long as it waits, in bytes; `work` how much of a worker it will take. `due_at` is its deadline
    or, without one, when it may have been passed by others of its app for long enough.
    """

    model: str
    priority: str
    app: str
    lane: Hashable
    arrival: int
    size: int = 0
    work: TaskSize = OPEN
    due_at: float = 0.0

    @property
    def turn(self) -> int:
        """Among the tasks of its app."""
        return turn_of(self.due_at, self.arrival)


@dataclass(slots=True)
class AdmissionQueue:
    """Waiting tasks. `capacity`, in tasks, and `capacity_bytes` bound each class; under drop-lru they bound all of them
    together, with so much for each. Beyond that an app gets in as long as it has less than its part.

    `now` is the brain's clock, `held` are the apps that may not start tasks.
    """

    priorities: Sequence[str]
    capacity: int
    policy: QueuePolicy = QueuePolicy.REJECT
    max_starvation_s: float = 60.0
    capacity_bytes: int = 128 * 2**20
    now: float = 0.0
    accounts: Accounts = field(default_factory=Accounts)
    held: set[str] = field(default_factory=set)
    _unkept: dict[str, int] = field(default_factory=dict)
    """Tasks that the store does not have yet, with their sizes."""
    _arrivals: int = 0
    _places: dict[str, Waiting] = field(default_factory=dict)
    _room: QueueRoom = field(init=False)
    _by_model: dict[str, dict[str, FairQueue]] = field(default_factory=dict)
    _waiting_of_app: dict[str, dict[str, int]] = field(default_factory=dict)
    _lines: dict[tuple[str, str], dict[str, Line]] = field(default_factory=dict)
    """By model and class: what waits of each app."""

    def __post_init__(self) -> None:
        self._room = QueueRoom(self.priorities, self.capacity, self.policy, self.capacity_bytes)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, task_id: str) -> Waiting:
        return self._places[task_id]

    def make_room(self, priority: str, size: int = 0, app: str = "", prospect: Prospect = NOTHING_KNOWN) -> list[str]:
        """Make room for one more task of the app, of so many bytes; one that starts at once needs none.

        Returns the tasks that have to be dropped for it. Raises ResourceExhausted with a delay that follows from how
        fast those of the app leave the class.
        """
        return self._room.make_room(priority, size, app, self.now, self._unkept, prospect)

    def too_many(self, task_id: str) -> list[str]:
        """Under drop-lru: the tasks that have to be dropped for this one, which was added without making room. None if
        that would not do: it stays all the same.
        """
        place = self._places[task_id]
        return self._room.too_many(task_id, place.priority, place.app, place.size)

    def add(
        self,
        task_id: str,
        model: str,
        priority: str,
        *,
        app: str = "",
        lane: Hashable = None,
        arrival: int | None = None,
        due_at: float | None = None,
        unkept: bool = False,
        size: int = 0,
        work: TaskSize = OPEN,
    ) -> None:
        """A task begins to wait. With the `arrival` of an earlier wait it gets its old place, and can't be dropped.

        `due_at`: its deadline. One that has none is due as late as a task may be passed by, so deadlines that are far
        away are no reason to pass it. `unkept`: the store does not have it yet, until `answered`. It has its place, but
        gets no slot: others pass it meanwhile. Nothing is loaded, and no worker leaves, for such tasks alone.
        """
        if unkept:
            self._unkept[task_id] = size
        is_new = arrival is None
        self._arrivals += is_new
        arrival = self._arrivals if arrival is None else arrival
        place = Waiting(model, priority, app, lane, arrival, size, work, self._due_at(due_at))
        self._places[task_id] = place
        self._room.add(task_id, priority, app, size, place.arrival, self.now, may_go=is_new)
        by_model = self._waiting_of_app.setdefault(app, {})
        by_model[model] = by_model.get(model, 0) + 1
        self._lines.setdefault((model, priority), {}).setdefault(app, Line()).add(place.turn, work)
        self.accounts.begins_to_wait(app)
        is_unkept = task_id in self._unkept
        self._queue(model, priority).add(task_id, app, lane, place.turn, self.now, unkept=is_unkept)

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
        self._room.remove(task_id, place.priority, place.app, place.size, self.now)
        self.accounts.waits_no_more(place.app)
        return place

    def let_others_pass(self, task_id: str) -> None:
        """From now on the task is due as late as one without a deadline that came now, if that is later."""
        place = self._places[task_id]
        later = replace(place, due_at=max(place.due_at, self._due_at(None)))
        line = self._lines[place.model, place.priority][place.app]
        line.remove(place.turn)
        line.add(later.turn, later.work)
        self._queue(place.model, place.priority).change(task_id, place.app, place.lane, later.turn)
        self._places[task_id] = later

    def answered(self, task_id: str) -> None:
        """The store has the task now, or never will."""
        if self._unkept.pop(task_id, None) is None:
            return
        if place := self._places.get(task_id):
            self._queue(place.model, place.priority).kept(task_id, place.app, place.lane)

    def take(self, task_id: str, device_s: float) -> Waiting:
        """The task gets a slot, and its app is charged with the device-seconds that it will probably take."""
        place = self._places[task_id]
        self.run_begins(place, device_s)
        return self.remove(task_id)

    def run_begins(self, place: Waiting, device_s: float) -> None:
        """Of a task that waited there, and does not any more, or is about not to."""
        self.accounts.charge(place.app, device_s)
        self._queue(place.model, place.priority).run_begins(self.now, device_s)

    def settle(self, place: Waiting, charged: float, used: float) -> None:
        """The run is over: the app pays for what it got, not for what was expected."""
        self.accounts.correct(place.app, used - charged)
        queue = self._by_model.get(place.model, {}).get(place.priority)
        if queue is not None:  # else the model is gone
            queue.run_ends(self.now)

    def forget_model(self, model: str) -> None:
        """It is in the catalog no more. What still waits for it goes on doing so, and is forgotten with its end."""
        if not self.has_waiting(model):
            self._by_model.pop(model, None)

    def forget_app(self, app: str) -> None:
        """No app has this name any more."""
        self.accounts.forget(app)
        self.held.discard(app)
        self.forget_returns(app)

    def forget_returns(self, app: str) -> None:
        """Nothing of it waits any more, and no app has this name."""
        if app not in self._waiting_of_app:
            self._room.forget_app(app)

    def has_lane(self, place: Waiting) -> bool:
        """Whether a task still waits in the lane of one that waited there."""
        return any(queue.has_lane(place.lane) for queue in self._by_model.get(place.model, {}).values())

    def has_waiting(self, model: str) -> bool:
        return self.waiting(model) > 0

    def waiting(self, model: str) -> int:
        """Tasks that wait for it, whether they may start or not."""
        return sum(map(len, self._by_model.get(model, {}).values()))

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
            yield from queue.in_order(self.accounts.time_of, self.held)

    def waiting_for(self, model: str) -> list[str]:
        """All tasks that wait for it, by class and arrival. Linear."""
        queues = self._by_model.get(model, {})
        return [task_id for name in self.priorities if (queue := queues.get(name)) for task_id in queue.by_arrival()]

    def lanes_of(self, model: str, allowance: Allowance = no_limit) -> list[Hashable]:
        """The lanes of tasks that could start if they had slots: for those the model may be loaded."""
        return list(dict.fromkeys(lane for queue in self._in_turn(model) for lane in queue.lanes(allowance)))

    def models(self) -> list[str]:
        """Models that tasks wait for, in the order in which their first tasks are next; last those of which none may
        start.
        """
        heads = ((model, next(self.heads(model), None)) for model in self._by_model if self.has_waiting(model))
        return [model for _, model in sorted((self._turn_of(head), model) for model, head in heads)]

    def _turn_of(self, task_id: str | None) -> tuple[float, ...]:
        if task_id is None:
            return (math.inf,)
        place = self._places[task_id]
        return self.rank(task_id), self.accounts.time_of(place.app), place.arrival

    def rank(self, task_id: str) -> int:
        """Of its class; the highest, 0, in one that has waited without a slot for too long."""
        return 0 if self.lacks_slots(task_id) else self.priorities.index(self._places[task_id].priority)

    def lacks_slots(self, task_id: str) -> bool:
        """Whether its class, for its model, has had no slot at all for as long as it may be passed over."""
        place = self._places[task_id]
        return self._queue(place.model, place.priority).without_slot_s(self.now) >= self.max_starvation_s

    def alike(self, task_id: str) -> int:
        """How many tasks of its app, class and lane may start, if they have slots."""
        place = self._places[task_id]
        return self._queue(place.model, place.priority).alike(place.app, place.lane)

    def models_of_app(self, app: str) -> list[str]:
        """Models that tasks of this app wait for."""
        return sorted(self._waiting_of_app.get(app, ()))

    def ahead(self, model: str, priority: str, app: str = "", due_at: float | None = None) -> Backlog:
        """About the tasks that would get a slot of the model before a task that came now."""
        own = Backlog()
        if line := self._lines_of(model, priority).get(app):
            own = line.before(turn_of(self._due_at(due_at), self._arrivals + 1))
        return self._before(model, priority, app, own)

    def before(self, task_id: str) -> Backlog:
        """About the tasks that get a slot of its model before it. Linear: for reports, not for decisions."""
        place = self._places[task_id]
        own = self._lines_of(place.model, place.priority)[place.app].before(place.turn)
        return self._before(place.model, place.priority, place.app, own)

    def depth(self, priority: str) -> int:
        return self._room.amount(priority).tasks

    def size(self, priority: str) -> int:
        """In bytes."""
        return self._room.amount(priority).size

    def _due_at(self, due_at: float | None) -> float:
        return self.now + self.max_starvation_s if due_at is None else due_at

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
        """With `own` tasks of its app before it, to which the rest is added: the other apps get slots meanwhile, until
        their accounts are where that of the app will be. Their tasks are taken to cost what the last one did.
        """
        accounts, queue = self.accounts, self._by_model.get(model, {}).get(priority)
        run_s = 0.0 if queue is None else queue.charged_s
        own_tasks, weight, begin = own.tasks, accounts.weight(app), accounts.time_at_start(app)
        for name in self.priorities[: self.priorities.index(priority)]:
            for line in self._lines_of(model, name).values():
                own.join(line.whole)
        for other, line in self._lines_of(model, priority).items():
            if other != app:
                waiting, share = line.whole.tasks, accounts.weight(other)
                is_behind_by = (begin - accounts.time_of(other)) * share / run_s if run_s else 0.0
                turns = own_tasks * share / weight + is_behind_by  # until it is where the app will be then
                own.join(line.whole, min(waiting, int(turns) + 1 if turns >= 0 else 0) / waiting)
        return own

    def _leave_line(self, place: Waiting) -> None:
        of_apps = self._lines[place.model, place.priority]
        of_apps[place.app].remove(place.turn)
        if not of_apps[place.app]:
            del of_apps[place.app]
        if not of_apps:
            del self._lines[place.model, place.priority]
