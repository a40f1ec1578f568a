"""A world that is disturbed, with clients and an operator, in which everything is checked."""

from collections.abc import Iterator

from llorch.assignment_mode import Mode
from orchestratord.core import events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import Origin
from orchestratord.core.state import BrainConfig
from orchestratord.simulation.worker_link import DETACH_GRACE_S
from orchestratord.simulation.world import DUPLICATE_AFTER_S
from orchestratord.simulation.world import World as UndisturbedWorld
from support.simulation.faults import Faults
from support.simulation.invariants import Invariants
from support.simulation.operator import Operator
from support.simulation.plan import Plan, RulePlan
from support.simulation.specs import model_spec
from support.simulation.traffic import Traffic

NOBODY_ENDS_FOR_S = 90.0
FULL_REPORTS_UNTIL_REST = 5


class World(UndisturbedWorld):
    plan: Plan

    def __init__(self, plan: Plan, *, config: BrainConfig | None = None, trace: bool = False) -> None:
        super().__init__(plan, config or _config(plan), _settings(plan), trace=trace)
        self.watch = self.invariants = Invariants(self)
        self.traffic = Traffic(self)
        self.operator = Operator(self)
        self.faults = Faults(self)

    def run(self) -> None:
        """Disturbed for as long as the plan says, then healed, until everything has ended."""
        self.begin()
        self.schedule.run_until(self.plan.disturbed_s)
        self.settle()

    def begin(self) -> None:
        super().begin()
        # Clients come when the hosts are there: before that they are refused, and that is soon told.
        self.schedule.after(0.5, self.traffic.begin)
        self.schedule.after(0.5, self.faults.begin)
        self.schedule.after(0.5, self.operator.begin)

    def settle(self) -> None:
        self.traffic.is_open = False
        self.faults.end()
        self.operator.end()
        open_tasks, since = self.invariants.tasks.open, self.schedule.now
        while self.schedule.now < since + NOBODY_ENDS_FOR_S and not self.invariants.all_have_ended():
            self.schedule.run_until(self.schedule.now + 1.0)
            if self.invariants.tasks.open < open_tasks:
                open_tasks, since = self.invariants.tasks.open, self.schedule.now
        self._come_to_rest()
        self.invariants.at_rest()

    def _come_to_rest(self) -> None:
        """What is under way arrives; every host tells all there is, as it does now and then; what is to end ends."""
        arrived_s = 2 * self.plan.faults.late_s + DUPLICATE_AFTER_S[-1]
        self.schedule.run_until(self.schedule.now + arrived_s)
        for _ in range(FULL_REPORTS_UNTIL_REST):
            for manager in self.managers.values():
                manager.report(full=True)
            self.schedule.run_until(self.schedule.now + arrived_s)
            if not self.invariants.memory.differences():
                break


def _settings(plan: Plan) -> Iterator[events.Event]:
    for app in plan.apps:
        yield events.AppDefined(App(app.name, weight=app.weight))
    for model in plan.models:
        yield events.ModelRegistered(model_spec(model), Origin.CALL, "the simulation")
    for rule in plan.rules:
        yield events.AssignmentSet(_assignment(rule))


def _config(plan: Plan) -> BrainConfig:
    return BrainConfig(
        queue_capacity=plan.queue_capacity,
        task_retention_s=20.0,
        no_device_grace_s=10.0,
        recovery_window_s=15.0,
        detach_grace_s=DETACH_GRACE_S,
        max_starvation_s=plan.max_starvation_s,
        min_residency_s=plan.min_residency_s,
    )


def _assignment(rule: RulePlan) -> Assignment:
    """As the settings file sets it: before its host was ever seen."""
    return Assignment(
        assignment_id="",
        model=rule.model,
        app=rule.app,
        targets=("/".join((rule.node_id, *rule.device_ids)),),
        mode=Mode[rule.mode],
        keep_loaded=rule.keep_loaded,
        origin=Origin.FILE,
    )
