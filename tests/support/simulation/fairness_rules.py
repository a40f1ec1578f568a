"""Order: no task starves behind a higher class, and the app that has had least of the GPUs for its weight is next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from orchestratord.core import effects
from orchestratord.core.facts.task import TaskRequest
from orchestratord.simulation.process import Process
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World

NEWCOMER = "?"
"""No app has this name: its account is where apps begin."""

LEAST_PAID = 0.9
"""Of what an app was seen to use. The brain knows how large a device is by reports, which come later than what they
tell: of memory that returns, a part is counted twice for a moment.
"""


@dataclass
class Line:
    """The tasks of one model and class."""

    unserved_since: float
    waiting: int = 0
    running: int = 0


@dataclass(frozen=True)
class Use:
    """A run that holds a slot: since when, and the part of a device that this is."""

    app: str
    since: float
    share: float
    line: Line


class FairnessRules:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._weights = {app.name: app.weight for app in world.plan.apps}
        self._lines: dict[tuple[str, str], Line] = {}
        self._queued: dict[str, TaskRequest] = {}
        self._bound_s = world.brain.state.config.max_starvation_s
        self._uses: dict[str, Use] = {}
        self._used: dict[str, float] = {}
        """By app, in device-seconds."""
        self._begun: list[str] = []
        """Attempts, by this event."""
        self._loading: list[str] = []
        """Loads that it began."""
        self._comparable = not any(rule.app for rule in world.plan.rules) and not world.plan.faults.pool_drains
        """Where an app may not run everywhere, a slot that another app gets may be none for it; so it is
        with a task that had to leave a drained pool.
        """

    def wants(self, effect: effects.Effect) -> None:
        if note := _NOTES.get(type(effect)):
            note(self, effect)

    def opened(self, effect: effects.OpenLog) -> None:
        request = effect.request
        line = self._line(request)
        if not line.waiting:
            line.unserved_since = self._world.schedule.now
        line.waiting += 1
        self._queued[request.task_id] = request

    def started(self, effect: effects.StartRun) -> None:
        request = effect.request
        if self._comparable:
            self._check_that_no_task_starves(request)
        line = self._line(request)
        line.unserved_since = self._world.schedule.now
        line.running += 1
        self._left(request.task_id)
        share = self._share(self._world.links[effect.worker_id].process)
        self._uses[effect.attempt_id] = Use(request.app, self._world.schedule.now, share, line)
        self._begun.append(effect.attempt_id)

    def loads(self, effect: effects.StartWorker) -> None:
        self._loading.append(effect.spec.worker_id)

    def ended(self, effect: effects.PersistTerminal | effects.AppendTerminal) -> None:
        self._left(effect.task_id)

    def check(self) -> None:
        """After an event: who began to run was behind who waits on; what has ended is paid for at rest."""
        ended = [attempt_id for attempt_id in self._uses if attempt_id not in self._world.brain.state.attempts]
        if self._comparable and len(ended) <= 1:  # an app is paid back what its lost runs did not take, one by one
            self._check_order()
        self._begun.clear()
        self._loading.clear()
        for attempt_id in ended:
            use = self._uses.pop(attempt_id)
            use.line.running -= 1
            use.line.unserved_since = self._world.schedule.now
            took_s = (self._world.schedule.now - use.since) * use.share
            self._used[use.app] = self._used.get(use.app, 0.0) + took_s

    def at_rest(self) -> None:
        for app, used_s in self._used.items():
            time = self._world.brain.state.queue.accounts.time_of(app)
            due = used_s / self._weights.get(app, 1.0)
            if time < LEAST_PAID * due:
                self._fail(
                    f"{app} has used {used_s:.4f} device-seconds, by its weight {due:.4f}; its account has {time:.4f}"
                )

    def _check_order(self) -> None:
        """Of the same model, class and lane. The account of an app that was served has what that cost already."""
        state = self._world.brain.state
        accounts, attempts = state.queue.accounts, state.attempts
        loads = [load for load_id in self._loading if (load := state.loads.get(load_id))]
        begun = [attempts[attempt_id] for attempt_id in self._begun if attempt_id in attempts]
        for place in {(one.place.model, one.place.priority, one.place.lane): one.place for one in begun}.values():
            charged = sum(one.charged_s for one in begun if one.place.app == place.app)
            charged += sum(load.charged_s for load in loads if load.payer == place.app)
            if accounts.time_of(place.app) == accounts.time_of(NEWCOMER):
                continue  # It was paid back so much that it is no debtor: where it was when it was served is forgotten.
            served_at = accounts.time_of(place.app) - charged / accounts.weight(place.app)
            for task_id in state.queue.heads(place.model):
                other = state.queue[task_id]
                is_alike = (other.priority, other.lane) == (place.priority, place.lane)
                if is_alike and other.app != place.app and accounts.time_of(other.app) < served_at - 1e-6:
                    self._fail(
                        f"{place.app} is served at {served_at:.2f}, before {task_id} of {other.app}, whose account has "
                        f"{accounts.time_of(other.app):.2f}"
                    )

    def _share(self, process: Process) -> float:
        cards = self._world.managers[process.node_id].host.cards
        parts = (
            min(1.0, mib / cards[device_id].capacity_mib)
            for device_id, mib in zip(process.spec.device_ids, process.spec.reservation_mib, strict=True)
        )
        return sum(parts) / process.spec.slots

    def _left(self, task_id: str) -> None:
        request = self._queued.pop(task_id, None)
        if request is not None:
            self._line(request).waiting -= 1

    def _check_that_no_task_starves(self, request: TaskRequest) -> None:
        """The first task of a lower class waits `max_starvation_s` at most while others are served before it."""
        classes = self._world.brain.state.config.priorities
        now = self._world.schedule.now
        for lower in classes[classes.index(request.priority) + 1 :]:
            line = self._lines.get((request.model, lower))
            if line is not None and line.waiting and not line.running and now - line.unserved_since > self._bound_s:
                raise Violation(
                    self._world,
                    f"{request.task_id} ({request.priority}) goes before those in {lower}, which got no slot of "
                    f"{request.model} for {now - line.unserved_since:.1f} s",
                )

    def _line(self, request: TaskRequest) -> Line:
        key = (request.model, request.priority)
        if key not in self._lines:
            self._lines[key] = Line(self._world.schedule.now)
        return self._lines[key]

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)


_NOTES: dict[type, Callable[[FairnessRules, Any], None]] = {
    effects.OpenLog: FairnessRules.opened,
    effects.StartRun: FairnessRules.started,
    effects.StartWorker: FairnessRules.loads,
    effects.PersistTerminal: FairnessRules.ended,
    effects.AppendTerminal: FairnessRules.ended,
}
