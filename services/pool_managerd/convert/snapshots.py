"""The state of the node."""

from llama_orch.v2 import node_link_pb2, pool_pb2, saved_session_pb2
from pool_managerd.convert.devices import to_device
from pool_managerd.convert.models import to_staged_model
from pool_managerd.convert.workers import to_activity, to_worker_report
from pool_managerd.node_state import NodeState, Pool
from pool_managerd.saved_place import SavedState


def to_snapshot(state: NodeState, node_id: str, *, with_endpoints: bool) -> node_link_pb2.NodeSnapshot:
    """`with_endpoints` only for the orchestrator: they hold the workers' secrets."""
    return node_link_pb2.NodeSnapshot(
        full=state.full,
        devices=[to_device(device) for device in state.devices],
        pools=[_pool(pool, node_id) for pool in state.pools],
        workers=[to_worker_report(worker, node_id, with_endpoint=with_endpoints) for worker in state.workers],
        staged_models=[to_staged_model(model) for model in state.models],
        worker_activity=[to_activity(worker) for worker in state.active],
        saved_sessions=_saved(state.saved) if state.saved is not None else None,
    )


def _saved(saved: SavedState) -> saved_session_pb2.SavedSessions:
    return saved_session_pb2.SavedSessions(
        sequences=saved.sequences, size_mib=saved.size_mib, budget_mib=saved.budget_mib
    )


def _pool(pool: Pool, node_id: str) -> pool_pb2.Pool:
    return pool_pb2.Pool(
        pool_id=pool.pool_id, node_id=node_id, device_ids=pool.device_ids, state=pool_pb2.POOL_STATE_READY
    )
