"""Whether a model can be had now, later, or never; for admission, for the queue, and for callers who ask.

Now: it is there or on its way, or a place is left where it fits. Later: workers that may leave some time are in its
way, or what could take it is away (`absences`): the tasks wait for what may be back soon, and are told to come back for
the rest. Never: an error that names the remedy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llorch.errors import FailedPrecondition, LlorchError, Reason, Unavailable
from orchestratord.core.facts.absence import Absence
from orchestratord.core.facts.decision import Decision, Largest, Outcome
from orchestratord.core.facts.durations import duration
from orchestratord.core.facts.fleet import Node, NodeState
from orchestratord.core.facts.loads import Plan
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import Task, TaskError
from orchestratord.core.placement import promises, replicas
from orchestratord.core.placement.absences import Survey, survey
from orchestratord.core.placement.filters import CONTEXT, too_many_tokens
from orchestratord.core.placement.load_planning import Outlook, may_ever_fit, outlook
from orchestratord.core.placement.needs import least_mib, told_need, ways_to_less
from orchestratord.core.placement.query import LoadRequest
from orchestratord.core.placement.tally import NO_ROOM, TOO_SMALL
from orchestratord.core.state import BrainState

_RETRY_AFTER_MS = 1000
_RETRY_SELDOM_MS = 30_000
PASSES = frozenset({Reason.UPSTREAM_UNAVAILABLE, Reason.DRAINING, Reason.STALE_EPOCH, Reason.STORE_FAILED})
"""Failures of a load by which the same load may succeed a little later."""

_OF_THE_NODE = PASSES | {Reason.MODEL_FILE_MISSING}
"""Failures of a load that say something of the node where it was tried, and nothing of others."""

_LEFT_ONLY = {
    "model_file": "whose node has its file",
    "engine": "that runs its engine",
    "compute_capability": "that is new enough for the engine",
    "load_failed": "whose node did not fail to load it",
}
"""What the devices have that are left by a filter which may leave out larger ones, by its name."""

_TOLD_AT_MOST = 4
"""Things that are away, in a message."""

_TRIED_WITHIN_S = 1.0
"""Of the time from which a load may be tried again: the next tick, which tries, comes sooner than this."""

LOADS_OF_BEGUN = 3
"""Loads that may fail in a row before tasks that have been running fail with them: the model was loaded before."""


def is_served(state: BrainState, name: str) -> bool:
    """Whether a worker of the model is there or on its way, on a node that can be reached."""
    return any(worker.serves and state.fleet.node_is_ready(worker) for worker in state.fleet.workers_of_model(name))


def there_already(state: BrainState, model: Model, places: tuple[Place, ...]) -> str:
    """The id of a worker at one of the places, there or on its way, that tasks may use by the rules; empty if there is
    none.
    """

    def will_do(node_id: str, device_ids: tuple[str, ...]) -> bool:
        node = state.fleet.nodes.get(node_id)
        return not places or (node is not None and any(place.covers(node, device_ids) for place in places))

    for worker in replicas.workers_for(state, Lane(model.name)):
        if will_do(worker.node_id, worker.spec.device_ids):
            return worker.worker_id
    for load in state.loads.of_model(model.name):
        if load.places == places or (load.plan is not None and will_do(load.plan.node_id, load.plan.device_ids)):
            return load.load_id
    return ""


def is_usable(node: Node | None, plan: Plan) -> bool:
    if node is None or node.state is not NodeState.READY:
        return False
    return all(device_id in node.devices and node.devices[device_id].usable for device_id in plan.device_ids)


def may_try(state: BrainState, name: str) -> bool:
    """Tasks get an answer now; a model that only a rule keeps loaded waits longer after each failure."""
    if state.queue.has_waiting(name):
        return True
    failure = state.load_failures.get(name)
    return failure is None or state.now - failure.at >= retry_after_s(state, name)


def retry_after_s(state: BrainState, name: str) -> float:
    factor: int = 1 << min(state.load_failures[name].in_a_row - 1, 16)
    return min(state.config.load_retry_s * factor, state.config.load_retry_max_s)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a task without a place waits for: `things` stay the same as long as nothing else is away. `for_s` is how
    long others than those that were accepted for good wait for it, if that is known.
    """

    things: tuple[str, ...]
    words: str
    for_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a model that has no place now: its tasks fail with the error, or wait, for what is away if that is told.

    With both, tasks that were accepted for good wait for `recovery_window_s` before they fail.
    """

    error: TaskError | None = None
    wait: Wait | None = None


def may_be_there(state: BrainState, model: Model, lane: Lane) -> Wait | None:
    """A wait for a node that was known before the start, has the model perhaps, and is about to register. Loading it
    elsewhere meanwhile would take memory, and evict others, for what is there.
    """
    return None if state.now >= state.settles_at else _wait_for(survey(state, model, lane))


def waits_until(state: BrainState, task: Task, wait: Wait | None) -> float:
    """How long a task without a place waits beyond the time of others: one that was accepted for good does so for what
    is away, or, after a start that knew no node, for nodes that may come yet; one that has been running, for another
    load.
    """
    is_blind = state.knew_no_node and state.now < state.recovering_until
    again_at = _loads_again_at(state, task) or state.now
    if not task.request.durable or not (wait or is_blind):
        return again_at
    began = state.now if task.placeless_since is None else task.placeless_since
    return max(again_at, began + state.config.recovery_window_s)


def wait_for_load(state: BrainState, task: Task) -> Wait | None:
    """Of a task that has been running, whose model could not be loaded again at the first try."""
    if _loads_again_at(state, task) is None:
        return None
    failure = state.load_failures[task.request.model]
    words = f"another load of the model, as the last one failed: {failure.message}"
    return Wait((f"load after {failure.worker_id} on {failure.node_id}",), words)


def _loads_again_at(state: BrainState, task: Task) -> float | None:
    """While the load is refused, it is due with a tick: what happens before that, after its time, ends no task."""
    name = task.request.model
    failure = state.load_failures.get(name)
    if not task.attempts or failure is None or failure.in_a_row >= LOADS_OF_BEGUN or not state.refusals.get(name):
        return None
    return max(failure.at + retry_after_s(state, name), state.now + _TRIED_WITHIN_S)


def told_to(state: BrainState, wait: Wait, task: Task | None) -> str:
    """What a task waits for, and how long it will; without a task, any that comes and is not accepted for good."""
    limits = [] if wait.for_s is None else [wait.for_s]
    if task is not None and (left_s := waits_until(state, task, wait) - state.now) > 0:
        limits.append(left_s)
    return f"{wait.words}; for {max(limits):.0f} s at most" if limits else wait.words


def verdict(
    state: BrainState, request: LoadRequest, there: Decision, decision: Decision, task: Task | None = None
) -> tuple[Outcome, str]:
    """The outcome of a decision on a load, and why: what it waits for, or the reason of the refusal. `there` is the one
    on the workers that there are, of which none will do. `task` is one that waits, where it is about one.
    """
    model, lane = request.model, request.lane
    if decision.chosen is not None:
        return Outcome.CHOSEN, ""
    if decision.waits:
        return Outcome.WAITS, ""
    looked = outlook(state, model, lane, frozenset(state.refusals.get(model.name, ())))
    if _is_left_out_by_its_length(state, lane, looked, there, decision):
        return Outcome.REFUSED, _prompt_too_long(state, request, decision)
    stands = standing(state, model, lane, looked)
    may_wait = task is not None and state.now < waits_until(state, task, stands.wait)
    if stands.error is not None and not may_wait:
        return Outcome.REFUSED, stands.error.message
    wait = stands.wait or (wait_for_load(state, task) if task is not None else None)
    return Outcome.WAITS, told_to(state, wait, task) if wait else ""


def _is_left_out_by_its_length(
    state: BrainState, lane: Lane, looked: Outlook, there: Decision, decision: Decision
) -> bool:
    """Whether shorter prompts have a place: `looked` is without any."""
    has_place = looked.plan is not None or looked.waits or replicas.serving(state, lane) > 0
    return has_place and any(one.removed.get(CONTEXT) for one in (there, decision))


def _prompt_too_long(state: BrainState, request: LoadRequest, decision: Decision) -> str:
    name = request.model.name
    contexts = [worker.engine.context_per_slot for worker in state.fleet.workers_of_model(name) if worker.engine]
    if decision.removed.get(CONTEXT) or not contexts:
        contexts.append(request.context)
    return (
        f"{too_many_tokens(request.prompt_tokens, max(contexts))}; shorten the prompt, or raise the context of model "
        f"'{name}'"
    )


def refuse_without_device(state: BrainState) -> None:
    if not state.fleet.nodes:
        raise Unavailable(
            Reason.NO_DEVICE,
            "no GPU host is connected; start pool-managerd there and point it at this orchestrator",
            retry_after_ms=_RETRY_AFTER_MS,
        )


def refuse_if_hopeless(state: BrainState, model: Model, lane: Lane) -> Wait | None:
    """A task does not wait for what can never be, nor for what is away and not back soon. What it waits for else."""
    refuse_without_device(state)
    if replicas.serving(state, lane) or may_ever_fit(state, model, lane):
        return None
    looked = outlook(state, model, lane)
    if looked.plan is not None or looked.waits:
        return None
    stands = _standing(state, model, lane, looked, {})
    if stands.error is not None:
        raise _refusal(stands.error)
    return stands.wait


def refuse_if_nowhere(state: BrainState, model: Model, lane: Lane, looked: Outlook, places: tuple[Place, ...]) -> None:
    """A load that is asked for is refused where no place is left; it waits where workers only have to leave."""
    if looked.plan is None and not looked.waits:
        found = survey(state, model, lane, places)
        error = _away(model.name, looked, found.away) if found.away else _never(state, model, looked, found)
        raise _refusal(error or _nothing_there(model))


def standing(state: BrainState, model: Model, lane: Lane, looked: Outlook, places: tuple[Place, ...] = ()) -> Standing:
    """Of tasks, or of a load, that wait, now that no place is left."""
    return _standing(state, model, lane, looked, state.refusals.get(model.name, {}), places)


def _standing(
    state: BrainState,
    model: Model,
    lane: Lane,
    looked: Outlook,
    failures: Mapping[str, TaskError],
    places: tuple[Place, ...] = (),
) -> Standing:
    """`failures` are those of loads of the model, by node."""
    found = survey(state, model, lane, places)
    if wait := _wait_for(found):
        return Standing(wait=wait)
    if looked.promise is not None and looked.decision.removed.get("fingerprint"):
        return Standing(promises.unavailable(state, model.name, looked.promise))
    failure = next(iter(failures.values()), None)
    if failure is not None and (not found.away or failure.reason not in _OF_THE_NODE):
        is_beside_it = failure.reason is Reason.MODEL_FILE_MISSING and _is_too_large(model, looked, found)
        return Standing(_never(state, model, looked, found) if is_beside_it else failure)
    if found.away:
        return Standing(_away(model.name, looked, found.away), _wait_of(found.away))
    return Standing(_never(state, model, looked, found))


def _wait_for(found: Survey) -> Wait | None:
    soon = [absence for absence in found.away if absence.soon]
    return _wait_of(soon) if soon else None


def _wait_of(away: Sequence[Absence]) -> Wait:
    limits = [absence.for_s for absence in away if absence.for_s is not None]
    things = tuple(absence.what for absence in away)
    return Wait(things, f"{_told(away)}{_by_when(away)}", max(limits) if len(limits) == len(away) else None)


def _away(name: str, looked: Outlook, away: Sequence[Absence]) -> TaskError:
    """There is a place, and it can't be had now."""
    rules = f" ({' and '.join(looked.decision.excluded_by)})" if looked.decision.excluded_by else ""
    then = "then" if all(absence.back_in_s is not None for absence in away) else "once that has changed"
    message = f"model '{name}' can't be had now{rules}: {_sentences(away)}; try again {then}{_by_when(away)}"
    return TaskError(Reason.NO_DEVICE, message, retry_after_ms=_retry_after_ms(away))


def _retry_after_ms(away: Sequence[Absence]) -> int:
    """Until the first is back, where all say when; seldom, where an operator has to do something first."""
    back = [absence.back_in_s for absence in away if absence.back_in_s is not None]
    if len(back) == len(away):
        return max(_RETRY_AFTER_MS, round(1000 * min(back)))
    return _RETRY_SELDOM_MS if all(absence.by_hand for absence in away) else _RETRY_AFTER_MS


def _sentences(away: Sequence[Absence]) -> str:
    return _listed([absence.sentence for absence in away], ", ")


def _told(away: Sequence[Absence]) -> str:
    return _listed([absence.words for absence in away], "; or ")


def _listed(told: Sequence[str], between: str) -> str:
    more = f", and {len(told) - _TOLD_AT_MOST} more" if len(told) > _TOLD_AT_MOST else ""
    return f"{between.join(told[:_TOLD_AT_MOST])}{more}"


def _by_when(away: Sequence[Absence]) -> str:
    """The first of several; what is away alone says itself when it is back."""
    back = [absence.back_in_s for absence in away if absence.back_in_s is not None]
    return f" (it may be back within {duration(min(back))})" if back and len(away) > 1 else ""


def _never(state: BrainState, model: Model, looked: Outlook, found: Survey) -> TaskError | None:
    """None only where no node has told any device yet: tasks wait for that, and not for long."""
    removed = looked.decision.removed
    if removed.get(NO_ROOM):
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, _no_room_beside_the_kept(model))
    largest = looked.decision.largest.or_larger(found.largest)
    needed_mib = least_mib(model)
    if needed_mib and largest.mib >= needed_mib:
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, _shares_fit_nowhere(model, needed_mib, largest))
    if needed_mib and largest.mib:
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, _fits_nowhere(model, looked.decision, needed_mib, largest))
    if removed.get("model_file"):
        return TaskError(Reason.MODEL_FILE_MISSING, _file_is_elsewhere(model, looked))
    if looked.decision.excluded_by:
        return TaskError(Reason.PIN_EXCLUDES_ALL, _no_place_left(model.name, looked.decision.excluded_by))
    if removed.get("engine"):
        return TaskError(Reason.NO_DEVICE, _no_such_engine(model))
    if removed.get("compute_capability"):
        message = f"no device is left for '{model.name}': what could take it is too old for the engine"
        return TaskError(Reason.NO_DEVICE, f"{message}; see `llorch gpus`")
    has_device = any(node.devices for node in state.fleet.nodes.values())
    return TaskError(Reason.MODEL_FITS_NO_DEVICE, _not_so_many(model)) if has_device else None


def _is_too_large(model: Model, looked: Outlook, found: Survey) -> bool:
    """For every place, so that a file which some nodes do not have changes nothing."""
    return bool(looked.decision.removed.get(TOO_SMALL)) and found.largest.mib < least_mib(model)


def _fits_nowhere(model: Model, decision: Decision, needed_mib: int, largest: Largest) -> str:
    """Of the devices that are left: what others lack is told with them, as they may be larger."""
    left = [f"that is left by {' and '.join(decision.excluded_by)}"] if decision.excluded_by else []
    left += [words for name, words in _LEFT_ONLY.items() if decision.removed.get(name)]
    change = "change that, " if decision.excluded_by else ""
    return (
        f"{told_need(model, needed_mib)}; {_the(largest, ' and '.join(left))} holds {largest.mib} MiB when empty; "
        f"{change}{ways_to_less(model)}, or take a larger device"
    )


def _the(largest: Largest, left: str) -> str:
    """Of several devices none need be the largest that there is."""
    what = f"the largest device {left}" if largest.devices == 1 else f"the largest place {left}"
    return what.strip() if largest.devices == 1 else f"{what.strip()}, {largest.devices} devices together,"


def _shares_fit_nowhere(model: Model, needed_mib: int, largest: Largest) -> str:
    """Devices that are together large enough are not, each for its share."""
    return (
        f"{told_need(model, needed_mib)}; {_the(largest, '')} holds {largest.mib} MiB when empty, but one of them less "
        f"than its share, beside what is to stay loaded; {ways_to_less(model)}, change its split_shares or what stays "
        f"loaded (`llorch assignments`); `llorch explain {model.name}` has each place"
    )


def _not_so_many(model: Model) -> str:
    return (
        f"no node has as many devices of one kind as model '{model.name}' is to be spread over; change its split, or "
        "its split_shares"
    )


def _no_room_beside_the_kept(model: Model) -> str:
    return (
        f"{told_need(model, least_mib(model))}, and the models that are to stay loaded leave no "
        "room for it on any device; see `llorch assignments`"
    )


def _file_is_elsewhere(model: Model, looked: Outlook) -> str:
    rules = f", and {' and '.join(looked.decision.excluded_by)} leaves no other" if looked.decision.excluded_by else ""
    return (
        f"the file of '{model.name}', {model.spec.source}, is in the models_dir of other nodes than those that could "
        f"load it{rules}; copy the file there, or change the rule"
    )


def _no_such_engine(model: Model) -> str:
    return (
        f"no device that is left for '{model.name}' runs the engine {model.spec.engine} that it names; give the model "
        "another engine or none, or start a node that offers this one"
    )


def _no_place_left(model: str, labels: list[str] | tuple[str, ...]) -> str:
    return (
        f"no device that is there is left for '{model}' by {' and '.join(labels)}; change the rule, allow a fallback, "
        "or bring the place back; `llorch assignments` and `llorch gpus` show both"
    )


def _refusal(error: TaskError) -> LlorchError:
    """A place that may be there again soon is worth a retry."""
    if error.retryable:
        return Unavailable(error.reason, error.message, retry_after_ms=error.retry_after_ms or _RETRY_AFTER_MS)
    return FailedPrecondition(error.reason, error.message)


def _nothing_there(model: Model) -> TaskError:
    message = f"no device that could take '{model.name}' answers now; see `llorch gpus`"
    return TaskError(Reason.NO_DEVICE, message)
