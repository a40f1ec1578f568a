"""Assignments, with their places by the names that they have now."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.targets import show
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class AssignmentView:
    """A place that is not there yet has the name that the rule gives it."""

    rule: Assignment
    targets: Sequence[str]


def view(state: BrainState, rule: Assignment) -> AssignmentView:
    targets = [
        target if place is None else show(state.fleet, place)
        for target, place in zip(rule.targets, rule.places, strict=True)
    ]
    return AssignmentView(rule, targets)
