"""Placement: pins are obeyed, and only models that may be evicted are evicted."""

from typing import TYPE_CHECKING, NoReturn

from orchestratord.core import effects
from orchestratord.simulation.violation import Violation
from support.simulation.plan import RulePlan
from support.simulation.task_rules import TaskRules

if TYPE_CHECKING:
    from support.simulation.world import World

LEAVES_UNASKED = frozenset({"evicted", "idle"})
"""Reasons of a stop that no operator asked for and no failure forced."""


class PlacementRules:
    def __init__(self, world: "World", tasks: TaskRules) -> None:
        self._world = world
        self._tasks = tasks
        self._model_of: dict[str, str] = {}
        self._pins = [rule for rule in world.plan.rules if rule.mode == "PIN"]
        self._kept = {rule.model for rule in world.plan.rules if rule.keep_loaded}

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
        link = self._world.links.get(worker_id)  # none to one that has not been loaded
        is_out_of_reach = link is None or link.line is None  # and what ran there may be given up
        if not is_out_of_reach and (busy := self._tasks.live_on(worker_id)):
            self._fail(f"{worker_id} is stopped ({effect.why}) while it runs {sorted(busy)}")
        if self._model_of.get(worker_id) in self._kept:
            self._fail(f"{worker_id} is stopped ({effect.why}) although {self._model_of[worker_id]} is to be kept")

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)
