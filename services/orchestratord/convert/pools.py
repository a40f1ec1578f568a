"""Pools: how they do, and what becomes of them."""

from llama_orch.v2 import fleet_service_pb2 as pb2
from llama_orch.v2 import pool_pb2
from llorch.rpc.enum_table import EnumTable
from llorch.worker_state import WorkerState
from orchestratord.core.events import PoolDrainAsked
from orchestratord.core.facts.drains import AfterDrain, Drain, DrainPolicy
from orchestratord.core.facts.fleet import NodeState, Pool, Worker
from orchestratord.core.lives import pools
from orchestratord.core.state import BrainState

DEFAULT_DEADLINE_MS = 30_000

_POLICIES = EnumTable(DrainPolicy, pb2.DrainPolicy)


def to_drain(
    request: pb2.DrainPoolRequest | pb2.ReloadPoolRequest | pb2.PurgePoolRequest, after: AfterDrain
) -> PoolDrainAsked:
    policy = _POLICIES.from_proto(request.policy, "policy") if request.policy else DrainPolicy.REQUEUE
    deadline_ms = request.deadline_ms if request.HasField("deadline_ms") else DEFAULT_DEADLINE_MS
    return PoolDrainAsked(request.pool_id, deadline_ms / 1000, policy, after)


def pool_to_proto(state: BrainState, pool: Pool) -> pool_pb2.Pool:
    return pool_pb2.Pool(
        pool_id=pool.pool_id,
        node_id=pool.node_id,
        device_ids=pool.device_ids,
        state=_pool_state(state.drains.find(pool.pool_id)),
    )


def health_to_proto(state: BrainState, pool: Pool) -> pb2.GetPoolHealthResponse:
    node, drain = state.fleet.nodes[pool.node_id], state.drains.find(pool.pool_id)
    workers = pools.workers_in(state, pool)
    ready = [worker for worker in workers if worker.state is WorkerState.READY and worker.engine]
    is_live = node.state is NodeState.READY
    has_device = any(node.devices[name].usable for name in pool.device_ids if name in node.devices)
    failures = (failure for failure in state.load_failures.values() if failure.node_id == pool.node_id)
    last = max(failures, key=lambda failure: failure.at, default=None)
    return pb2.GetPoolHealthResponse(
        pool=pool_to_proto(state, pool),
        ready=is_live and has_device and drain is None,
        live=is_live,
        slots_total=sum(worker.engine.slots for worker in ready if worker.engine),
        slots_free=sum(worker.slots_free for worker in ready if worker.takes_runs),
        blockers=[] if drain is None else [_blocker(worker) for worker in workers],
        last_error="" if last is None else f"{last.model}: {last.message}",
    )


def _pool_state(drain: Drain | None) -> "pool_pb2.PoolState.ValueType":
    if drain is None:
        return pool_pb2.POOL_STATE_READY
    return pool_pb2.POOL_STATE_DRAINED if drain.is_drained else pool_pb2.POOL_STATE_DRAINING


def _blocker(worker: Worker) -> pb2.DrainBlocker:
    runs = len(worker.attempts)
    if runs:
        message = f"{worker.spec.model} still runs {runs} task(s)"
    else:
        message = f"the process that had {worker.spec.model} is ending"
    return pb2.DrainBlocker(worker_id=worker.worker_id, runs=runs, message=message)
