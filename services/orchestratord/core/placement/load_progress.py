"""What a load does now, in sentences for users."""

from orchestratord.core.facts.loads import Load, LoadPhase, Plan
from orchestratord.core.state import BrainState


def describe_load(state: BrainState, name: str) -> str | None:
    """The sentence for the reader of a task that waits for this model."""
    load = min(state.loads.of_model(name), key=lambda load: load.since, default=None)
    return None if load is None else describe(state, load)


def describe(state: BrainState, load: Load) -> str:
    name = load.model
    if load.plan is None:
        return f"waiting for a place where {name} fits"
    if load.phase is LoadPhase.STAGING:
        return f"looking for the file of {name} on {load.node_id}"
    if load.phase is LoadPhase.MAKING_ROOM:
        leaving = sorted(state.fleet.workers[worker_id].spec.model for worker_id in load.waits_for)
        return f"making room for {name} on {load.node_id}: {' and '.join(leaving)} leave{'s' * (len(leaving) == 1)}"
    return f"loading {name} on {_devices_of(state, load.plan)} of {load.node_id}{_less_context(state, load.plan, name)}"


def _devices_of(state: BrainState, plan: Plan) -> str:
    devices = state.fleet.nodes[plan.node_id].devices
    return " + ".join(devices[device_id].name for device_id in plan.device_ids if device_id in devices)


def _less_context(state: BrainState, plan: Plan, name: str) -> str:
    model = state.catalog.find(name)
    if model is None or plan.context >= model.context:
        return ""
    return f" with context {plan.context}: {model.context} would fit on no device"
