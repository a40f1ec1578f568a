"""Pools: what is to become of them, and what callers are shown."""

from llama_orch.v2 import fleet_service_pb2 as pb2
from llama_orch.v2 import pool_pb2
from llorch.rpc.enum_table import EnumTable
from orchestratord.core.events import PoolDrainAsked
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.views.pools import PoolHealth, PoolState, PoolView

DEFAULT_DEADLINE_MS = 30_000

_POLICIES = EnumTable(DrainPolicy, pb2.DrainPolicy)
_STATES = EnumTable(PoolState, pool_pb2.PoolState)


def to_drain(
    request: pb2.DrainPoolRequest | pb2.ReloadPoolRequest | pb2.PurgePoolRequest, after: AfterDrain
) -> PoolDrainAsked:
    policy = _POLICIES.from_proto(request.policy, "policy") if request.policy else DrainPolicy.REQUEUE
    deadline_ms = request.deadline_ms if request.HasField("deadline_ms") else DEFAULT_DEADLINE_MS
    return PoolDrainAsked(request.pool_id, deadline_ms / 1000, policy, after)


def pool_to_proto(view: PoolView) -> pool_pb2.Pool:
    return pool_pb2.Pool(
        pool_id=view.pool.pool_id,
        node_id=view.pool.node_id,
        device_ids=view.pool.device_ids,
        state=_STATES.to_proto(view.state),
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
