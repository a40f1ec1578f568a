"""Where things go: pins are obeyed, and workers that were evicted were allowed to leave."""

from typing import TYPE_CHECKING, NoReturn

from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from support.simulation.plan import RulePlan
from support.simulation.task_rules import TaskRules
from support.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World

LEAVES_FOR_OTHERS = frozenset({"evicted"})
LEAVES_UNASKED = frozenset({"evicted", "idle"})
"""Reasons of a stop that no caller asked for and nothing forced."""


class PlacementRules:
    def __init__(self, world: "World", tasks: TaskRules) -> None:
        self._world = world
        self._tasks = tasks
        self._model_of: dict[str, str] = {}
        self._ready_at: dict[str, float] = {}
        """By worker: when the brain heard that it is loaded."""
        self._pins = [rule for rule in world.plan.rules if rule.mode == "PIN"]
        self._kept = {rule.model for rule in world.plan.rules if rule.keep_loaded}

    def heard(self, event: events.Event) -> None:
        if isinstance(event, events.NodeReported | events.NodeRegistered):
            for told in event.snapshot.workers:
                if told.state is WorkerState.READY:
                    self._ready_at.setdefault(told.spec.worker_id, self._world.schedule.now)

    def wants(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.StartWorker):
            self._starts(effect)
        elif isinstance(effect, effects.StopWorker):
            self._stops(effect)
        elif isinstance(effect, effects.StartRun):
            self._runs(effect)

    def _starts(self, effect: effects.StartWorker) -> None:
        spec = effect.spec
        self._model_of[spec.worker_id] = spec.model
        for rule in self._pins:
            if rule.app == "" and rule.model == spec.model and not rule.covers(effect.node_id, spec.device_ids):
                self._fail(f"{spec.model} is loaded on {spec.device_ids} of {effect.node_id}, against {rule}")

    def _runs(self, effect: effects.StartRun) -> None:
        process = self._world.links[effect.worker_id].process
        for rule in self._rules_for(effect.request.model, effect.request.app):
            if not rule.covers(process.node_id, process.spec.device_ids):
                where = f"{process.spec.device_ids} of {process.node_id}"
                self._fail(f"{effect.request.task_id} of {effect.request.app} runs on {where}, against {rule}")

    def _rules_for(self, model: str, app: str) -> list[RulePlan]:
        return [rule for rule in self._pins if rule.model in ("", model) and rule.app in ("", app)]

    def _stops(self, effect: effects.StopWorker) -> None:
        if effect.why not in LEAVES_UNASKED:
            return
        worker_id = effect.worker_id
        is_out_of_reach = self._world.links[worker_id].line is None  # and what ran there may be given up
        if not is_out_of_reach and (busy := self._tasks.live_on(worker_id)):
            self._fail(f"{worker_id} is stopped ({effect.why}) while it runs {sorted(busy)}")
        if self._model_of.get(worker_id) in self._kept:
            self._fail(f"{worker_id} is stopped ({effect.why}) although {self._model_of[worker_id]} is to be kept")
        loaded_for = self._world.schedule.now - self._ready_at.get(worker_id, self._world.schedule.now)
        least = self._world.plan.min_residency_s
        if effect.why in LEAVES_FOR_OTHERS and loaded_for < least:
            self._fail(f"{worker_id} is evicted {loaded_for:.1f} s after it was loaded; {least:g} s are the least")

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)
