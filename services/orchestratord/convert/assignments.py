"""Assignments, and what a request wishes about its place."""

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import assignment_pb2, task_pb2
from llorch.identifiers import check_id
from llorch.options.assignment import ASSIGNMENT, RuleTerms
from llorch.options.option import values_of
from llorch.options.task import PLACEMENT
from llorch.rpc.enum_tables import ASSIGNMENT_MODES
from orchestratord.convert.option_checks import check_options
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.rules import Wishes
from orchestratord.views.assignments import AssignmentView


def to_draft(assignment: assignment_pb2.Assignment) -> Assignment:
    for name in ("assignment_id", "model", "app"):
        if value := getattr(assignment, name):
            check_id(value, name)
    check_options("", ASSIGNMENT, assignment)
    return Assignment(
        assignment_id=assignment.assignment_id,
        model=assignment.model,
        app=assignment.app,
        targets=tuple(assignment.targets),
        mode=ASSIGNMENT_MODES.from_proto(assignment.mode, "mode"),
        **values_of(RuleTerms, assignment),
    )


def to_proto(view: AssignmentView) -> assignment_pb2.Assignment:
    rule = view.rule
    create_time = Timestamp()
    create_time.FromMilliseconds(rule.created_at_ms)
    return assignment_pb2.Assignment(
        assignment_id=rule.assignment_id,
        model=rule.model,
        app=rule.app,
        targets=view.targets,
        mode=ASSIGNMENT_MODES.to_proto(rule.mode),
        create_time=create_time,
        problems=view.problems,
        **values_of(RuleTerms, rule),
    )


def to_wishes(overrides: task_pb2.PlacementOverrides) -> Wishes:
    check_options("placement", PLACEMENT, overrides)
    return Wishes(
        pin=tuple(overrides.pin),
        prefer=tuple(overrides.prefer),
        avoid=tuple(overrides.avoid),
        device_mask=tuple(overrides.device_mask),
        fallback=overrides.fallback if overrides.HasField("fallback") else None,
    )
