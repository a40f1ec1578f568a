"""The operator: gives cards back to their owner and takes them again, changes models, sets rules and deletes them."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from llorch.assignment_mode import Mode
from orchestratord.core import events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import Origin
from orchestratord.simulation.plan import DevicePlan, HostPlan
from support.simulation.specs import model_spec

if TYPE_CHECKING:
    from support.simulation.world import World


class Operator:
    """One call after the other, as the orchestrator takes them. At the end everything is put back."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._random = Random(f"operator of {world.plan.seed}")  # noqa: S311  # a schedule, not a secret
        self._to_undo: dict[object, events.Command[Any]] = {}

    def begin(self) -> None:
        if rate := self.world.plan.faults.operator_acts:
            self.world.schedule.after(self._random.expovariate(rate), self._act)

    def end(self) -> None:
        """Puts back what is left, when the store has answered."""
        if self.world.store.writing is not None:
            self.world.schedule.after(0.1, self.end)
        elif self._to_undo:
            self._undo(next(iter(self._to_undo)))
            self.world.schedule.after(0.1, self.end)

    def _act(self) -> None:
        if not self.world.is_disturbed:
            return
        if self.world.store.writing is None:
            self._random.choice(_DEEDS)(self)
        self.begin()

    def _change(self, command: events.Command[Any], what: object, undo: events.Command[Any]) -> None:
        if self.world.tell(command):
            self._to_undo[what] = undo

    def _undo(self, what: object) -> None:
        if self.world.tell(self._to_undo[what]):
            del self._to_undo[what]

    def _undo_something(self) -> None:
        if self._to_undo:
            self._undo(self._random.choice(list(self._to_undo)))

    def _release(self) -> None:
        host, device = self._card()
        self._change(
            events.DeviceReleaseAsked(host.node_id, (device.device_id,)),
            device,
            events.DeviceResumeAsked(host.node_id, (device.device_id,)),
        )

    def _describe_model(self) -> None:
        """With another number of slots, so that workers have to be loaded anew."""
        model = self._random.choice(self.world.plan.models)
        other = replace(model, slots=self._random.choice([1, 2, 4]))
        self._change(_registered(other), model, _registered(model))

    def _delete_model(self) -> None:
        model = self._random.choice(self.world.plan.models)
        self._change(events.ModelDeleted(model.name), model, _registered(model))

    def _prefer(self) -> None:
        model, (host, _) = self._random.choice(self.world.plan.models), self._card()
        rule_id = f"operator.{model.name}"
        draft = Assignment(rule_id, model.name, "", (host.node_id,), Mode.PREFER)
        self._change(events.AssignmentSet(draft), rule_id, events.AssignmentDeleted(rule_id))

    def _card(self) -> tuple[HostPlan, DevicePlan]:
        host = self._random.choice(self.world.plan.hosts)
        return host, self._random.choice(host.devices)


def _registered(model: Any) -> events.ModelRegistered:
    return events.ModelRegistered(model_spec(model), Origin.CALL, "the operator")


_DEEDS: tuple[Callable[[Operator], None], ...] = (
    Operator._release,
    Operator._describe_model,
    Operator._delete_model,
    Operator._prefer,
    Operator._undo_something,
    Operator._undo_something,
)
