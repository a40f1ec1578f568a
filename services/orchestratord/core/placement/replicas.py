"""How many workers a model should have: what rules want at least and at most, and what its tasks need."""

from dataclasses import replace

from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.core.facts.rules import Lane, Rules, rules_of
from orchestratord.core.facts.task import Task
from orchestratord.core.placement import allowances, promises
from orchestratord.core.placement.lanes import lane_of_place
from orchestratord.core.state import BrainState


def least(state: BrainState, name: str) -> int:
    """Workers that the model has whether or not tasks use it."""
    rules = state.assignments.loading(name)
    return max(rules.replicas_min, int(rules.keep_loaded))


def is_kept(state: BrainState, worker: Worker) -> bool:
    """Without it the model would have fewer workers than a rule keeps loaded."""
    minimum = least(state, worker.spec.model)
    return minimum > 0 and serving(state, Lane(worker.spec.model)) <= minimum


def wants_another(state: BrainState, lane: Lane) -> bool:
    """Whether to begin a load of the model now, for tasks that wait in this lane or for rules that keep it loaded."""
    there = _there_or_coming(state, lane)
    if lane == Lane(lane.model) and there < least(state, lane.model):
        return True
    if not state.queue.has_waiting(lane.model):
        return False
    return there == 0 or (there < state.assignments.loading(lane.model).replicas_max and _is_overloaded(state, lane))


def are_coming(state: BrainState, lane: Lane) -> bool:
    """Whether there are workers for the lane, or loads of them."""
    return _there_or_coming(state, lane) > 0


def serving(state: BrainState, lane: Lane) -> int:
    """How many workers tasks of the lane may use, or soon will."""
    return len(workers_for(state, lane))


def idle_limit_s(state: BrainState, worker: Worker) -> float | None:
    """How long the worker may be idle before it leaves; None = until its memory is needed."""
    name = worker.spec.model
    if is_kept(state, worker):
        return None
    limits: list[float] = []
    model = state.catalog.find(name)
    if model is not None and model.spec.idle_unload_s is not None:
        limits.append(model.spec.idle_unload_s)
    if not worker.asked and serving(state, Lane(name)) > max(1, least(state, name)):
        limits.append(state.config.replica_idle_s)
    return min(limits, default=None)


def _is_overloaded(state: BrainState, lane: Lane) -> bool:
    """All workers are busy, none is on its way, and the waiting tasks would fill all slots once more."""
    if lane.model in state.loads or _expected(state, lane):
        return False
    slots = 0
    for worker in workers_for(state, lane):
        if worker.state is WorkerState.STARTING or worker.slots_free > 0:
            return False
        slots += len(worker.attempts)
    return state.queue.count(lane.model, allowances.may_start(state, lane.model)) >= slots


def workers_for(state: BrainState, lane: Lane) -> list[Worker]:
    """Workers that tasks of the lane may use, or soon will."""
    return [worker for worker in _all_for(state, lane) if not worker.is_overdue]


def heads_for(state: BrainState, worker: Worker) -> list[Task]:
    """The first tasks of each app that wait for its model and may run on this worker, in order. What may not, such as
    a task that a rule wants on a node that is away, holds no other model up.
    """
    lanes: dict[Lane, bool] = {}
    found = []
    for task_id in state.queue.heads(worker.spec.model):
        lane = lane_of_place(state.queue[task_id])
        if lane not in lanes:
            lanes[lane] = not worker.is_overdue and _is_for(
                state, rules_of(state.assignments, state.fleet, lane), lane, worker
            )
        if lanes[lane]:
            found.append(state.tasks[task_id])
    return found


def _there_or_coming(state: BrainState, lane: Lane) -> int:
    return serving(state, lane) + len(_expected(state, lane)) + _on_the_way(state, lane)


def _expected(state: BrainState, lane: Lane) -> list[Worker]:
    """Workers out of reach that have a moment to be reached again, as their node is back. Tasks do not wait for them
    where another worker is free, and they may be evicted; but none is loaded in their place.
    """
    if not state.fleet.silent:
        return []
    return [
        worker
        for worker in _all_for(state, lane)
        if worker.is_overdue
        and worker.answers
        and worker.expected_until is not None
        and state.now < worker.expected_until
    ]


def _all_for(state: BrainState, lane: Lane) -> list[Worker]:
    """Workers of ready nodes that tasks of the lane could use, within reach or not."""
    rules = rules_of(state.assignments, state.fleet, lane)
    return [worker for worker in state.fleet.workers_of_model(lane.model) if _is_for(state, rules, lane, worker)]


def _is_for(state: BrainState, rules: Rules, lane: Lane, worker: Worker) -> bool:
    return worker.serves and state.fleet.node_is_ready(worker) and _admits(state, rules, lane, worker)


def _admits(state: BrainState, rules: Rules, lane: Lane, worker: Worker) -> bool:
    if not rules.admits(state.fleet.nodes[worker.node_id], worker.spec.device_ids):
        return False
    if lane.continues and worker.engine is not None and not worker.engine.resumes:
        return False
    return lane.promise is None or promises.is_kept_by(state, lane.promise, worker)


def _on_the_way(state: BrainState, lane: Lane) -> int:
    """Loads that have no worker yet; one that has is counted as a worker. What is loaded now can continue output, and a
    suspect waits for a worker like any other.
    """
    wanted = _of_any_task(lane)
    return sum(
        load.phase is not LoadPhase.STARTING and _of_any_task(load.lane) == wanted
        for load in state.loads.of_model(lane.model)
    )


def _of_any_task(lane: Lane) -> Lane:
    return replace(lane, continues=False, suspect="")
