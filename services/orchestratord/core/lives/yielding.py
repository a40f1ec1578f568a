"""How long tasks that wait for a model leave the workers in its place alone.

Idle workers leave when the tasks have waited for as long as their leaving is expected to cost. Workers that are always
busy make way for a model that has waited long: they take no new runs, finish, and leave; without this, a model that
never falls idle would keep all others out for as long as it is asked for.
"""

from collections.abc import Mapping, Sequence

from llorch.worker_state import WorkerState
from orchestratord.core.facts.decision import Decision
from orchestratord.core.facts.fleet import Leaving, Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import Task
from orchestratord.core.lives import model_unloading
from orchestratord.core.placement import allowances, eviction
from orchestratord.core.state import BrainState

WORTH_OF_A_LOAD = 4
"""A worker keeps its place for so many times what its load took, so that models that take turns do not only load."""


def make_way(state: BrainState, lane: Lane, decision: Decision) -> None:
    """Let as few workers as possible leave, at the first of the places that would be large enough."""
    head = _head(state, lane)
    if head is None:
        return
    wait_s = _longest_wait_s(state, head)
    if state.now - head.created_at < wait_s:
        state.look_by(head.created_at + wait_s)
        return
    for place in decision.blocked:
        keys = [(place.node_id, device_id) for device_id in place.device_ids]
        yielding = _enough(state, head, dict(zip(keys, place.claims_mib, strict=True)))
        if yielding is not None:
            for worker in yielding:
                model_unloading.leave(state, worker, Leaving.EVICTED)
            return


def is_worth_evicting(state: BrainState, lane: Lane, evicted: Sequence[str]) -> bool:
    """Whether the waiting tasks have waited, all together, for as long as the eviction is expected to cost.

    Models without demand leave at once. A model that will be needed again at any moment stays for about as long as
    its reload would take, because meanwhile another may fall idle that is needed less; so waiting and loading together
    cost at most twice what they would have to.
    """
    head = _head(state, lane)
    if head is None:
        return True
    workers = (state.fleet.workers[worker_id] for worker_id in evicted)
    regret_s = sum(eviction.regret_ms(state, worker) for worker in workers) / 1000
    waiting = max(1.0, state.queue.count(lane.model, allowances.may_start(state, lane.model)) / 2)
    wait_s = min(regret_s / waiting, _longest_wait_s(state, head))
    if state.now - head.created_at >= wait_s:
        return True
    state.look_by(head.created_at + wait_s)
    return False


def may_yield(state: BrainState, worker: Worker, head: Task) -> bool:
    return (
        worker.state is WorkerState.READY
        and worker.leaving is None
        and not eviction.is_kept(state, worker)
        and _has_paid_off(state, worker)
        and not _is_before(state, worker.spec.model, head)
    )


def _longest_wait_s(state: BrainState, task: Task) -> float:
    """The highest class is served first; a lower one waits behind it as long as it may."""
    is_highest = task.request.priority == state.config.priorities[0]
    return state.config.model_wait_s if is_highest else state.config.max_starvation_s


def _enough(state: BrainState, head: Task, claims: Mapping[DeviceKey, int]) -> list[Worker] | None:
    """Workers that have to leave beside those that are leaving already; None if that would not do."""
    lacking = {key: mib - state.ledger.available(key) for key, mib in claims.items()}
    there = {worker.worker_id: worker for key in claims for worker in state.fleet.workers_on_device(*key)}
    for worker in there.values():
        if not worker.serves:
            _take_off(state, lacking, worker)
    chosen: list[Worker] = []
    willing = [worker for worker in there.values() if may_yield(state, worker, head)]
    willing.sort(key=lambda worker: (eviction.regret_ms(state, worker), len(worker.attempts), worker.worker_id))
    for worker in willing:
        if all(mib <= 0 for mib in lacking.values()):
            break
        if any(lacking.get((worker.node_id, device_id), 0) > 0 for device_id in worker.spec.device_ids):
            _take_off(state, lacking, worker)
            chosen.append(worker)
    return chosen if all(mib <= 0 for mib in lacking.values()) else None


def _take_off(state: BrainState, lacking: dict[DeviceKey, int], worker: Worker) -> None:
    for device_id in worker.spec.device_ids:
        key = (worker.node_id, device_id)
        if key in lacking:
            lacking[key] -= state.ledger.held_by(worker.worker_id, key)


def _has_paid_off(state: BrainState, worker: Worker) -> bool:
    least_s = max(state.config.min_residency_s, WORTH_OF_A_LOAD * eviction.reload_ms(state, worker) / 1000)
    if worker.ready_at is None:
        return False
    wait_s = worker.ready_at + least_s - state.now
    if wait_s > 0:
        state.look_by(state.now + wait_s)
    return wait_s <= 0


def _is_before(state: BrainState, model: str, head: Task) -> bool:
    """Whether a task that waits for that model goes before this one: of a higher class, or of its own and longer."""
    of = state.config.priorities.index
    for task_id in state.queue.heads(model):
        other = state.tasks[task_id]
        here, there = of(head.request.priority), of(other.request.priority)
        if there < here and state.now - head.created_at < state.config.max_starvation_s:
            return True
        if there == here and other.created_at <= head.created_at:
            return True
    return False


def _head(state: BrainState, lane: Lane) -> Task | None:
    """The task that has waited longest in the lane."""
    waiting = (state.tasks[task_id] for task_id in state.queue.heads(lane.model) if state.queue[task_id].lane == lane)
    return min(waiting, key=lambda task: task.created_at, default=None)
