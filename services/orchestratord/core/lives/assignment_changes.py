"""Assignments are set and deleted: waiting tasks change their lanes, and workers in the wrong place leave."""

from dataclasses import replace
from functools import partial

from llorch.assignment_mode import Mode
from llorch.errors import FailedPrecondition, LlorchError, Reason, invalid_field
from orchestratord.core.effects import PersistRecord
from orchestratord.core.events import AssignmentDeleted, AssignmentSet
from orchestratord.core.facts.assignments import Assignment, describe
from orchestratord.core.facts.contradictions import contradiction
from orchestratord.core.facts.fleet import Fleet, Leaving, Node
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.rules import Lane, rules_of
from orchestratord.core.facts.targets import Place, resolve
from orchestratord.core.lives import model_unloading, task_requeue
from orchestratord.core.placement.needs import ways_to_less
from orchestratord.core.placement.rule_problems import too_large
from orchestratord.core.state import BrainState


def assignment_set(state: BrainState, event: AssignmentSet) -> Assignment:
    """Set a rule, or change the one with its id. Refused if it names nothing, or contradicts another."""
    rule = _complete(state, event)
    old = state.assignments.find(rule.assignment_id)
    if old is not None and old.origin is Origin.FILE and rule.origin is not Origin.FILE:
        raise _of_file(old, "change it there")
    _refuse_if_meaningless(rule)
    _refuse_if_contradictory(state, rule)
    _refuse_if_too_large(state, rule)
    if rule.origin is not Origin.FILE:
        state.propose(partial(_changed, state, old, rule), RecordChange(old, rule))
        return rule
    if old is not None and old.origin is not Origin.FILE:
        state.emit(PersistRecord(old, None))  # rules of the settings file are not stored
    _changed(state, old, rule)
    return rule


def assignment_deleted(state: BrainState, event: AssignmentDeleted) -> None:
    rule = state.assignments.get(event.assignment_id)
    if rule.origin is Origin.FILE:
        raise _of_file(rule, "remove it there")
    state.propose(partial(_changed, state, rule, None), RecordChange(rule, None))


def node_came(state: BrainState) -> None:
    """Rules of the settings file may name places that are known only now."""
    for rule in state.assignments.unresolved():
        places = tuple(
            place or _place(state.fleet, target, may_wait=True)
            for target, place in zip(rule.targets, rule.places, strict=True)
        )
        if places != rule.places:
            _changed(state, rule, replace(rule, places=places))


def workers_came_along(state: BrainState, node: Node) -> None:
    """The host of these workers has another name now, and perhaps no rule admits them there."""
    for model in sorted({worker.spec.model for worker in state.fleet.workers_on(node.node_id)}):
        _move_misplaced(state, model)


def restore(state: BrainState, record: Assignment) -> None:
    state.assignments.put(record)


def _complete(state: BrainState, event: AssignmentSet) -> Assignment:
    """The rule with the names and places that it means, and with an id."""
    draft = event.draft
    is_of_file = draft.origin is Origin.FILE
    if draft.app and not is_of_file:
        state.apps.get(draft.app)
    rule = replace(
        draft,
        model=draft.model if is_of_file or not draft.model else state.catalog.get(draft.model).name,
        places=tuple(_place(state.fleet, target, may_wait=is_of_file) for target in draft.targets),
        created_at_ms=event.at_ms or state.ms_now,  # the settings file says no time
    )
    return rule if rule.assignment_id else replace(rule, assignment_id=state.assignments.id_for(rule))


def _refuse_if_meaningless(rule: Assignment) -> None:
    if not rule.model and not rule.app:
        raise invalid_field("model", "names no model and no app; say which one is assigned")
    if not rule.targets:
        raise invalid_field("targets", "names no place; for example garage/3090")
    if rule.replicas_max and rule.replicas_min > rule.replicas_max:
        raise invalid_field("replicas_min", f"is {rule.replicas_min}, above replicas_max, {rule.replicas_max}")
    if not rule.model and (rule.keep_loaded or rule.replicas_min or rule.replicas_max):
        raise invalid_field("model", "is needed with keep_loaded and replicas: they say how often a model is loaded")
    if rule.fallback and rule.mode is not Mode.PIN:
        raise invalid_field(
            "fallback", f"means something for pins alone; {rule.mode.lower()} always leaves other places"
        )


def _refuse_if_contradictory(state: BrainState, rule: Assignment) -> None:
    """The message names all rules that contradict each other."""
    others = [other for other in state.assignments.all() if other.assignment_id != rule.assignment_id]
    found = contradiction(state.fleet, rule, others)
    if found is None:
        return
    names = " and ".join(f"'{other.assignment_id}' ({describe(state.fleet, other)})" for other in found.others)
    raise FailedPrecondition(
        Reason.ASSIGNMENT_CONFLICT,
        f"'{rule.assignment_id}' ({describe(state.fleet, rule)}) contradicts {names}: {found.why}; nothing was set; "
        f"ask for something else, or first `llorch unassign {found.others[0].assignment_id}`",
        metadata={"assignment_id": rule.assignment_id, "contradicts": found.others[0].assignment_id},
    )


def _refuse_if_too_large(state: BrainState, rule: Assignment) -> None:
    """A rule of the settings file never keeps the orchestrator from starting; its problem is told with it."""
    found = too_large(state, rule)
    if found is None or not found.is_final or rule.origin is Origin.FILE:
        return
    raise FailedPrecondition(
        Reason.MODEL_FITS_NO_DEVICE,
        f"'{rule.assignment_id}' ({describe(state.fleet, rule)}) could never be met: {found}; nothing was set; "
        f"{ways_to_less(found.model)}, or name a larger place, or several cards together",
        metadata={"assignment_id": rule.assignment_id, "model": rule.model},
    )


def _place(fleet: Fleet, target: str, *, may_wait: bool) -> Place | None:
    """None for a place that is not there yet, where the rule may wait for it."""
    try:
        return resolve(fleet, target)
    except LlorchError:
        if may_wait:
            return None
        raise


def _changed(state: BrainState, old: Assignment | None, new: Assignment | None) -> None:
    """The rule is in force, or no longer; what it said before may have been about another model or app."""
    rules = [rule for rule in (old, new) if rule is not None]
    if new is not None:
        state.assignments.put(new)
    elif old is not None:
        state.assignments.discard(old.assignment_id)
    for app in sorted({rule.app for rule in rules if rule.app}):
        _sort_anew(state, app)
    for name in sorted({rule.model for rule in rules if rule.model}):
        state.refusals.pop(name, None)
        _move_misplaced(state, name)
        model_unloading.watch_workers(state, name)
    state.look_again = True


def _sort_anew(state: BrainState, app: str) -> None:
    """Whether a rule names the app decides the lane in which its tasks wait; they keep their places in the queue."""
    for model in state.queue.models_of_app(app):
        for task_id in state.queue.waiting_for(model):
            if state.queue[task_id].app == app:
                task_requeue.change_lane(state, state.tasks[task_id])


def _move_misplaced(state: BrainState, model: str) -> None:
    """Workers that are where no task of the model may go any more leave; what runs on them goes on."""
    rules = rules_of(state.assignments, state.fleet, Lane(model))
    for worker in list(state.fleet.workers_of_model(model)):
        node = state.fleet.nodes.get(worker.node_id)
        if worker.serves and node is not None and not rules.admits(node, worker.spec.device_ids):
            model_unloading.leave(state, worker, Leaving.CHANGED)


def _of_file(rule: Assignment, then: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.SET_ELSEWHERE, f"assignment '{rule.assignment_id}' is defined in the settings file, which wins; {then}"
    )
