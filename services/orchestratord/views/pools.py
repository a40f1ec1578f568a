"""Pools: the states of their drains, and their health."""

from dataclasses import dataclass
from enum import StrEnum

from llorch.counted import counted
from llorch.worker_state import WorkerState
from orchestratord.core.facts.drains import Drain
from orchestratord.core.facts.fleet import NodeState, Pool, Worker
from orchestratord.core.state import BrainState


class PoolState(StrEnum):
    READY = "READY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


@dataclass(frozen=True, slots=True)
class PoolView:
    pool: Pool
    state: PoolState


@dataclass(frozen=True, slots=True)
class Blocker:
    """A worker that a drain still waits for; `runs` are its tasks."""

    worker_id: str
    runs: int
    message: str


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """`last_error` is that of the last load that failed on the pool's node; empty if none did."""

    pool: PoolView
    is_ready: bool
    is_live: bool
    slots_total: int
    slots_free: int
    blockers: tuple[Blocker, ...]
    last_error: str


def view(state: BrainState, pool: Pool) -> PoolView:
    return PoolView(pool, _state_of(state.drains.find(pool.pool_id)))


def health(state: BrainState, pool_id: str) -> PoolHealth:
    """Raises NotFound for a pool that no node has."""
    pool = state.fleet.pool(pool_id)
    node, drain = state.fleet.nodes[pool.node_id], state.drains.find(pool.pool_id)
    workers = state.fleet.workers_using(pool.node_id, pool.device_ids)
    ready = [worker for worker in workers if worker.state is WorkerState.READY and worker.engine]
    is_live = node.state is NodeState.READY
    has_device = any(node.devices[name].usable for name in pool.device_ids if name in node.devices)
    return PoolHealth(
        pool=PoolView(pool, _state_of(drain)),
        is_ready=is_live and has_device and drain is None,
        is_live=is_live,
        slots_total=sum(worker.engine.slots for worker in ready if worker.engine),
        slots_free=sum(worker.slots_free for worker in ready if worker.takes_runs),
        blockers=() if drain is None else tuple(_blocker(worker) for worker in workers),
        last_error=_last_error(state, pool.node_id),
    )


def _state_of(drain: Drain | None) -> PoolState:
    if drain is None:
        return PoolState.READY
    return PoolState.DRAINED if drain.is_drained else PoolState.DRAINING


def _blocker(worker: Worker) -> Blocker:
    runs = len(worker.attempts)
    if runs:
        message = f"{worker.spec.model} still runs {counted(runs, 'task')}"
    else:
        message = f"the process that had {worker.spec.model} is ending"
    return Blocker(worker.worker_id, runs, message)


def _last_error(state: BrainState, node_id: str) -> str:
    failures = (failure for failure in state.load_failures.values() if failure.node_id == node_id)
    last = max(failures, key=lambda failure: failure.at, default=None)
    return "" if last is None else f"{last.model}: {last.message}"
