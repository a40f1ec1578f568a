"""Whether a model can be had now, later, or never; for admission, for the queue, and for callers who ask.

Now: it is there or on its way, or a place is left where it fits. Later: workers that may leave some time are in its
way, or a node that may come back does not answer. Never: an error that names the remedy.
"""

from llorch.errors import FailedPrecondition, LlorchError, Reason, Unavailable
from orchestratord.core.facts.decision import Decision, Outcome
from orchestratord.core.facts.fleet import Node, NodeState
from orchestratord.core.facts.loads import Plan
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.rules import Lane, Rules, rules_of
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskError
from orchestratord.core.placement import promises, replicas
from orchestratord.core.placement.load_planning import Outlook, may_ever_fit, outlook
from orchestratord.core.placement.tally import NO_ROOM
from orchestratord.core.state import BrainState

STAYS_AWAY = {
    "device_released": "released to its owner",
    "pool_draining": "in a drained pool",
    "compute_capability": "too old for the engine",
}
"""Filters of devices that take part again only if the operator does something: no task waits for that."""


def is_served(state: BrainState, name: str) -> bool:
    """Whether a worker of the model is there or on its way, on a node that can be reached."""
    return any(worker.serves and state.fleet.node_is_ready(worker) for worker in state.fleet.workers_of_model(name))


def there_already(state: BrainState, model: Model, places: tuple[Place, ...]) -> str:
    """The id of a worker at one of the places, there or on its way; empty if there is none."""

    def will_do(node_id: str, device_ids: tuple[str, ...]) -> bool:
        node = state.fleet.nodes.get(node_id)
        return not places or (node is not None and any(place.covers(node, device_ids) for place in places))

    for worker in state.fleet.workers_of_model(model.name):
        if worker.serves and state.fleet.node_is_ready(worker) and will_do(worker.node_id, worker.spec.device_ids):
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


def outcome_of(decision: Decision) -> Outcome:
    """The outcome of a decision by itself, without nodes that may come back."""
    if decision.chosen is not None:
        return Outcome.CHOSEN
    return Outcome.WAITS if decision.waits else Outcome.REFUSED


def refuse_without_device(state: BrainState) -> None:
    if not state.fleet.nodes:
        raise Unavailable(
            Reason.NO_DEVICE,
            "no GPU host is connected; start pool-managerd there and point it at this orchestrator",
            retry_after_ms=1000,
        )
    if not any(device.usable for node in state.fleet.nodes.values() for device in node.devices.values()):
        raise Unavailable(
            Reason.NO_DEVICE,
            "no GPU host that is connected has a device that can be used; see `llorch gpus`",
            retry_after_ms=1000,
        )


def refuse_if_excluded(state: BrainState, lane: Lane) -> None:
    """A task that the rules leave no device for does not wait for a device that has never been seen."""
    rules = rules_of(state.assignments, state.fleet, lane)
    if not rules.excludes:
        return
    nodes = [node for node in state.fleet.nodes.values() if node.state is not NodeState.LOST]
    if any(_leaves_something(rules, node) for node in nodes):
        return
    raise FailedPrecondition(Reason.PIN_EXCLUDES_ALL, _no_place_left(lane.model, rules.labels(state.fleet)))


def refuse_if_hopeless(state: BrainState, model: Model, lane: Lane) -> None:
    """A task that can never run does not wait: there is nothing to run it on, or no device could hold the model."""
    refuse_without_device(state)
    if not model.memory_is_known or not state.fleet.ready_nodes() or replicas.serving(state, lane):
        return
    if may_ever_fit(state, model, lane):
        return
    looked = outlook(state, model, lane)
    if looked.plan is None and not looked.waits and (error := _no_place(state, model, looked)):
        raise _refusal(error)


def refuse_if_nowhere(state: BrainState, model: Model, looked: Outlook) -> None:
    """A load that is asked for is refused where no place is left; it waits where workers only have to leave."""
    if looked.plan is None and not looked.waits:
        raise _refusal(why_nowhere(state, model, looked) or _nothing_there(model))


def why_nowhere(state: BrainState, model: Model, looked: Outlook) -> TaskError | None:
    """The error for the tasks that wait, now that no place is left; None if a node or a device may still come."""
    if any(_may_come_back(state, node) for node in state.fleet.nodes.values()):
        return None
    if looked.promise is not None and looked.decision.removed.get("fingerprint"):
        return _promise_broken(state, model, looked.promise)
    if refused := state.refusals.get(model.name):
        return next(iter(refused.values()))
    return _no_place(state, model, looked)


def _no_place(state: BrainState, model: Model, looked: Outlook) -> TaskError | None:
    """None if nothing is known about how much it takes, or no device is there that could be considered."""
    if looked.decision.removed.get(NO_ROOM):
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, _no_room_beside_the_kept(model, looked))
    if model.memory_is_known and looked.decision.has_usable:
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, _fits_nowhere(model, looked))
    if any(drain.comes_back for drain in state.drains.all()):
        return None
    if looked.decision.excluded_by:
        return TaskError(Reason.PIN_EXCLUDES_ALL, _no_place_left(model.name, looked.decision.excluded_by))
    if looked.decision.removed.get("engine"):
        return TaskError(Reason.NO_DEVICE, _no_such_engine(model), retryable=True)
    removed = [words for name, words in STAYS_AWAY.items() if looked.decision.removed.get(name)]
    if removed:
        message = f"no device is left for '{model.name}': what could take it is {' or '.join(removed)}"
        return TaskError(Reason.NO_DEVICE, f"{message}; see `llorch gpus`", retryable=True)
    return None


def _promise_broken(state: BrainState, model: Model, promise: Promise) -> TaskError | None:
    """There are places, but of another fingerprint. None as long as one of the same may still come."""
    if state.now < state.nodes_awaited_until or any(
        promises.may_come_back(state, promise, drain) for drain in state.drains.all()
    ):
        return None
    return promises.unavailable(state, model.name, promise)


def _fits_nowhere(model: Model, looked: Outlook) -> str:
    rules = " and ".join(looked.decision.excluded_by)
    left, change = (f"device that is left by {rules}", "change that, ") if rules else ("device", "")
    return (
        f"model '{model.name}' needs about {looked.needed_mib} MiB with context {model.context} and {model.slots} "
        f"slots; the largest {left} holds {looked.decision.largest_mib} MiB when empty; {change}lower its context or "
        "slots, take a smaller quantization, or a larger device"
    )


def _no_room_beside_the_kept(model: Model, looked: Outlook) -> str:
    return (
        f"model '{model.name}' needs about {looked.needed_mib} MiB, and the models that are to stay loaded leave no "
        "room for it on any device; see `llorch assignments`"
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


def _leaves_something(rules: Rules, node: Node) -> bool:
    singles = ((device_id,) for device_id in node.devices)
    named = (place.device_ids for place in rules.sets() if place.node_id == node.node_id)
    return any(
        rules.admits(node, device_ids) for device_ids in (*singles, *named) if node.devices.keys() >= set(device_ids)
    )


def _refusal(error: TaskError) -> LlorchError:
    """A place that may be there again soon is worth a retry."""
    if error.reason is Reason.NO_DEVICE:
        return Unavailable(error.reason, error.message, retry_after_ms=1000)
    return FailedPrecondition(error.reason, error.message)


def _nothing_there(model: Model) -> TaskError:
    return TaskError(Reason.NO_DEVICE, f"no device that could take '{model.name}' answers now; see `llorch gpus`")


def _may_come_back(state: BrainState, node: Node) -> bool:
    is_lost = state.now - node.last_report_at >= state.config.no_device_grace_s
    return node.state is NodeState.SUSPECT and not is_lost
