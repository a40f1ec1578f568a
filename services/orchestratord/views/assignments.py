"""Assignments, with their places by the names that they have now."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.targets import show
from orchestratord.core.placement.rule_problems import RuleProblems
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class AssignmentView:
    """A place that is not there yet has the name that the rule gives it."""

    rule: Assignment
    targets: Sequence[str]
    problems: Sequence[str]


def views(state: BrainState, rules: Iterable[Assignment]) -> list[AssignmentView]:
    problems = RuleProblems(state)
    return [_view(state, rule, problems) for rule in rules]


def _view(state: BrainState, rule: Assignment, problems: RuleProblems) -> AssignmentView:
    targets = [
        target if place is None else show(state.fleet, place)
        for target, place in zip(rule.targets, rule.places, strict=True)
    ]
    return AssignmentView(rule, targets, problems.of(rule))
