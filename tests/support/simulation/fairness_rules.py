"""Order: no task starves behind a higher class, and apps that want more than there is get shares by weight."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestratord.core import effects
from orchestratord.core.facts.task import TaskRequest
from support.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World

SHARE_TOLERANCE = 0.10
TASKS_PER_WINDOW = 40
"""So many of the largest task have to be served in a window before a share says anything."""


@dataclass
class Line:
    """The tasks of one model and class. `window` is what apps were served while all of them always waited."""

    unserved_since: float
    waiting: dict[str, int] = field(default_factory=dict)
    window: dict[str, int] = field(default_factory=dict)


class FairnessRules:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._weights = {app.name: app.weight for app in world.plan.apps}
        self._lines: dict[tuple[str, str], Line] = {}
        self._queued: dict[str, TaskRequest] = {}
        self._largest = max(world.plan.tokens_in) + max(world.plan.tokens_out)
        self._bound_s = world.brain.state.config.max_starvation_s
        self.windows_judged = 0
        self._comparable = not any(rule.app for rule in world.plan.rules) and not world.plan.faults.pool_drains
        """Where an app may not run everywhere, a slot that another app gets may be none for it; so it is
        with a task that had to leave a drained pool.
        """

    def wants(self, effect: effects.Effect) -> None:
        if self._comparable and (note := _NOTES.get(type(effect))):
            note(self, effect)

    def opened(self, effect: effects.OpenLog) -> None:
        request = effect.request
        line = self._line(request)
        if not line.waiting:
            line.unserved_since = self._world.schedule.now
        if request.app not in line.waiting:
            line.waiting[request.app] = 0
            self._begin_window(line)
        line.waiting[request.app] += 1
        self._queued[request.task_id] = request

    def started(self, effect: effects.StartRun) -> None:
        request = effect.request
        self._check_that_no_task_starves(request)
        line = self._line(request)
        line.unserved_since = self._world.schedule.now
        if request.app in line.window:
            line.window[request.app] += sum(self._world.tokens_of(request.task_id))
        self._left(request.task_id)

    def ended(self, effect: effects.PersistTerminal | effects.AppendTerminal) -> None:
        self._left(effect.task_id)

    def _left(self, task_id: str) -> None:
        request = self._queued.pop(task_id, None)
        if request is None:
            return
        line = self._line(request)
        line.waiting[request.app] -= 1
        if not line.waiting[request.app]:
            self._judge_window(line)
            del line.waiting[request.app]
            self._begin_window(line)

    def _check_that_no_task_starves(self, request: TaskRequest) -> None:
        """The first task of a lower class waits `max_starvation_s` at most while others are served before it."""
        classes = self._world.brain.state.config.priorities
        now = self._world.schedule.now
        for lower in classes[classes.index(request.priority) + 1 :]:
            line = self._lines.get((request.model, lower))
            if line is not None and line.waiting and now - line.unserved_since > self._bound_s:
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

    def _begin_window(self, line: Line) -> None:
        line.window = dict.fromkeys(line.waiting, 0)

    def _judge_window(self, line: Line) -> None:
        served = sum(line.window.values())
        if len(line.window) < 2 or served < TASKS_PER_WINDOW * self._largest:
            return
        self.windows_judged += 1
        weights = sum(self._weights[app] for app in line.window)
        for app, tokens in line.window.items():
            share, due = tokens / served, self._weights[app] / weights
            if abs(share - due) > SHARE_TOLERANCE * due + self._largest / served:
                raise Violation(
                    self._world,
                    f"{app} got {share:.0%} of {served} tokens while {', '.join(line.window)} all wanted more; its "
                    f"weight means {due:.0%}",
                )


_NOTES: dict[type, Callable[[FairnessRules, Any], None]] = {
    effects.OpenLog: FairnessRules.opened,
    effects.StartRun: FairnessRules.started,
    effects.PersistTerminal: FairnessRules.ended,
    effects.AppendTerminal: FairnessRules.ended,
}
