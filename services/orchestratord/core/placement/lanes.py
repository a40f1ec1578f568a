"""The parts of a task that decide where it may run, and the wishes about its place that it may have."""

from dataclasses import replace

from llorch.errors import PermissionDenied, Reason
from llorch.options.task import WISHES
from orchestratord.core.facts.admission import Waiting
from orchestratord.core.facts.rules import NO_OVERRIDES, Lane, OverridePolicy, Overrides, Wishes
from orchestratord.core.facts.targets import Place, resolve
from orchestratord.core.facts.task import Task, TaskRequest
from orchestratord.core.state import BrainState


def lane_of_place(place: Waiting) -> Lane:
    """Where a task waits in the queue, for which a lane is any value."""
    return place.lane if isinstance(place.lane, Lane) else Lane(place.model)


def rank_in(state: BrainState, lane: Lane) -> int:
    """Of the first task that waits in the lane; the highest, 0, where none does."""
    waiting = (task_id for task_id in state.queue.heads(lane.model) if lane_of_place(state.queue[task_id]) == lane)
    return min(map(state.queue.rank, waiting), default=0)


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
        **{mode.word: _places(state, getattr(wishes, mode.word)) for mode in WISHES},
        device_mask=tuple(sorted(wishes.device_mask)),
        fallback=wishes.fallback,
        above_rules=policy is OverridePolicy.ANY,
    )


def lane_of(state: BrainState, request: TaskRequest) -> Lane:
    """Of a task that has not begun. Apps that no rule names share a lane."""
    app = request.app if state.assignments.names_app(request.app) else ""
    return Lane(request.model, app, request.overrides)


def lane_of_task(state: BrainState, task: Task) -> Lane:
    return replace(
        lane_of(state, task.request),
        promise=task.promise,
        continues=task.first_token_at is not None,
        suspect=task.task_id if task.suspicion.is_hot else "",
    )


def _places(state: BrainState, targets: tuple[str, ...]) -> tuple[Place, ...]:
    return tuple(resolve(state.fleet, target) for target in targets)
