"""What of a task decides where it may run, and what of that it may wish for itself."""

from llorch.errors import FailedPrecondition, PermissionDenied, Reason
from orchestratord.core.facts.fleet import Node, NodeState
from orchestratord.core.facts.rules import NO_OVERRIDES, Lane, OverridePolicy, Overrides, Rules, Wishes, rules_of
from orchestratord.core.facts.targets import Place, resolve
from orchestratord.core.facts.task import TaskRequest
from orchestratord.core.state import BrainState


def overrides_of(state: BrainState, wishes: Wishes | None) -> Overrides:
    """The wishes by the devices that they mean. Raises PermissionDenied, NotFound or InvalidArgument."""
    if wishes is None or wishes == Wishes():
        return NO_OVERRIDES
    policy = state.config.override_policy
    if policy is OverridePolicy.NONE:
        raise PermissionDenied(
            Reason.NOT_PERMITTED,
            "placement: requests may not say where they run here (setting placement_overrides); leave it out, or have "
            "an assignment set",
        )
    return Overrides(
        pin=_places(state, wishes.pin),
        prefer=_places(state, wishes.prefer),
        avoid=_places(state, wishes.avoid),
        device_mask=tuple(sorted(wishes.device_mask)),
        fallback=wishes.fallback,
        above_rules=policy is OverridePolicy.ANY,
    )


def lane_of(state: BrainState, request: TaskRequest) -> Lane:
    """Apps that no rule names share a lane."""
    app = request.app if state.assignments.names_app(request.app) else ""
    return Lane(request.model, app, request.overrides)


def refuse_if_excluded(state: BrainState, lane: Lane) -> None:
    """A task that the rules leave no device for does not wait for one that nobody has ever seen."""
    rules = rules_of(state.assignments, state.fleet, lane)
    if not (rules.pins or rules.avoids or rules.device_mask):
        return
    nodes = [node for node in state.fleet.nodes.values() if node.state is not NodeState.LOST]
    if any(_leaves_something(rules, node) for node in nodes):
        return
    raise FailedPrecondition(Reason.PIN_EXCLUDES_ALL, no_place_left(lane.model, rules.labels(state.fleet)))


def no_place_left(model: str, labels: list[str] | tuple[str, ...]) -> str:
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


def _places(state: BrainState, targets: tuple[str, ...]) -> tuple[Place, ...]:
    return tuple(resolve(state.fleet, target) for target in targets)
