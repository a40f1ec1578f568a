"""Giving way: a run ends for a task of a higher class that waits, and what gave way for long enough does not again."""

from typing import TYPE_CHECKING, NoReturn

from orchestratord.core import effects
from orchestratord.core.facts.attempt import Attempt
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World


class GivingWayRules:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._gave_way: list[effects.RunGaveWay] = []
        """In this event."""
        self._since: dict[str, float] = {}
        """By task: when it first gave way."""
        self._granted: set[str] = set()
        """Runs that may not give way."""

    def wants(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.RunGaveWay):
            self._gave_way.append(effect)
        elif isinstance(effect, effects.StartRun):
            request = effect.request
            key = request.model, request.priority
            bound_s = self._world.brain.state.config.max_starvation_s
            passed_s = self._world.schedule.now - self._since.get(request.task_id, self._world.schedule.now)
            others = self._world.brain.state.attempts.of_class(*key)
            has_other = any(other.has_grant and other.attempt_id != effect.attempt_id for other in others)
            if passed_s >= bound_s and not has_other:
                self._granted.add(effect.attempt_id)

    def check(self) -> None:
        state = self._world.brain.state
        going = [attempt for model in self._world.models for attempt in state.attempts.giving_way(model)]
        for attempt in going:
            self._since.setdefault(attempt.task_id, self._world.schedule.now)
            if attempt.attempt_id in self._granted:
                self._fail(f"{attempt.attempt_id} gives way, though its task did long ago")
        self._granted &= state.attempts.keys()
        for effect in self._gave_way:
            if not any(self._is_higher(task_id, effect.priority) for task_id in self._waiting()):
                self._fail(f"a run of {effect.model} gives way, and no task of a higher class waits")
            self._check_number(effect.model, going)
        self._gave_way.clear()

    def _check_number(self, model: str, going: list[Attempt]) -> None:
        """For their slots alone no more end than tasks wait; what makes room for another model ends whole."""
        state = self._world.brain.state
        workers = state.fleet.workers
        ending = [workers[it.worker_id] for it in going if it.place.model == model and it.worker_id in workers]
        for_slots = [worker for worker in ending if worker.attached and worker.leaving is None]
        lowest = state.config.priorities[-1]
        waiting = [task_id for task_id in state.queue.waiting_for(model) if self._is_higher(task_id, lowest)]
        if len(for_slots) > len(waiting):
            self._fail(f"{len(for_slots)} runs of {model} give way to {len(waiting)} tasks")

    def _waiting(self) -> list[str]:
        queue = self._world.brain.state.queue
        return [task_id for model in self._world.models for task_id in queue.waiting_for(model)]

    def _is_higher(self, task_id: str, priority: str) -> bool:
        classes = self._world.brain.state.config.priorities
        return classes.index(self._world.brain.state.queue[task_id].priority) < classes.index(priority)

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)
