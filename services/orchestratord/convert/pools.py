"""Pools: what is to become of them, and what callers are shown."""

from llama_orch.v2 import fleet_service_pb2 as pb2
from llama_orch.v2 import pool_pb2
from llorch.errors import invalid_field
from orchestratord.core.events import PoolDrainAsked
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.views.pools import PoolHealth, PoolState, PoolView

DEFAULT_DEADLINE_MS = 30_000

_POLICIES = {
    pb2.DRAIN_POLICY_UNSPECIFIED: DrainPolicy.REQUEUE,
    pb2.DRAIN_POLICY_REQUEUE: DrainPolicy.REQUEUE,
    pb2.DRAIN_POLICY_WAIT: DrainPolicy.WAIT,
    pb2.DRAIN_POLICY_FAIL: DrainPolicy.FAIL,
}
_STATES = {
    PoolState.READY: pool_pb2.POOL_STATE_READY,
    PoolState.DRAINING: pool_pb2.POOL_STATE_DRAINING,
    PoolState.DRAINED: pool_pb2.POOL_STATE_DRAINED,
}


def to_drain(
    request: pb2.DrainPoolRequest | pb2.ReloadPoolRequest | pb2.PurgePoolRequest, after: AfterDrain
) -> PoolDrainAsked:
    if request.policy not in _POLICIES:
        raise invalid_field("policy", f"{request.policy} is none of its values")
    deadline_ms = request.deadline_ms if request.HasField("deadline_ms") else DEFAULT_DEADLINE_MS
    return PoolDrainAsked(request.pool_id, deadline_ms / 1000, _POLICIES[request.policy], after)


def pool_to_proto(view: PoolView) -> pool_pb2.Pool:
    return pool_pb2.Pool(
        pool_id=view.pool.pool_id,
        node_id=view.pool.node_id,
        device_ids=view.pool.device_ids,
        state=_STATES[view.state],
    )


def health_to_proto(health: PoolHealth) -> pb2.GetPoolHealthResponse:
    return pb2.GetPoolHealthResponse(
        pool=pool_to_proto(health.pool),
        ready=health.is_ready,
        live=health.is_live,
        slots_total=health.slots_total,
        slots_free=health.slots_free,
        blockers=[
            pb2.DrainBlocker(worker_id=blocker.worker_id, runs=blocker.runs, message=blocker.message)
            for blocker in health.blockers
        ],
        last_error=health.last_error,
    )
