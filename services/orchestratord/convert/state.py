"""The state at a glance: nodes, devices with their ledger, workers, queues."""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import device_pb2, fleet_service_pb2, node_pb2, pool_pb2, worker_pb2
from orchestratord.convert.nodes import from_spec
from orchestratord.core.fleet import Device, Node, NodeState, Worker, WorkerState
from orchestratord.core.state import BrainState

_NODE_STATES = {
    NodeState.JOINING: node_pb2.NODE_STATE_JOINING,
    NodeState.READY: node_pb2.NODE_STATE_READY,
    NodeState.SUSPECT: node_pb2.NODE_STATE_SUSPECT,
    NodeState.LOST: node_pb2.NODE_STATE_LOST,
}
_WORKER_STATES = {
    WorkerState.STARTING: worker_pb2.WORKER_STATE_STARTING,
    WorkerState.READY: worker_pb2.WORKER_STATE_READY,
    WorkerState.STOPPING: worker_pb2.WORKER_STATE_STOPPING,
    WorkerState.ENDED: worker_pb2.WORKER_STATE_EXITED,
}


def to_proto(
    state: BrainState, *, cluster_id: str, control_epoch: int, version: str, now: float, wall: datetime
) -> fleet_service_pb2.State:
    """`now` is the brain's clock, `wall` the same moment for people."""
    nodes = sorted(state.fleet.nodes.values(), key=lambda node: node.node_id)
    return fleet_service_pb2.State(
        time=_timestamp(wall),
        cluster_id=cluster_id,
        control_epoch=control_epoch,
        version=version,
        nodes=[node_to_proto(node, now, wall) for node in nodes],
        devices=[_ledger(state, node, device) for node in nodes for device in _by_index(node)],
        workers=[worker_to_proto(worker) for worker in sorted(state.fleet.workers.values(), key=lambda w: w.worker_id)],
        queues=[
            fleet_service_pb2.QueueState(
                priority=priority, depth=state.queue.depth(priority), capacity=state.queue.capacity
            )
            for priority in state.queue.priorities
        ],
        tasks_running=state.running,
    )


def node_with_contents(state: BrainState, node: Node, now: float, wall: datetime) -> node_pb2.Node:
    """A node with its devices and workers, for those who ask for one node."""
    shown = node_to_proto(node, now, wall)
    shown.devices.extend(_report_of(device) for device in _by_index(node))
    shown.workers.extend(worker_to_proto(worker) for worker in state.fleet.workers_on(node.node_id))
    return shown


def node_to_proto(node: Node, now: float, wall: datetime) -> node_pb2.Node:
    return node_pb2.Node(
        node_id=node.node_id,
        state=_NODE_STATES[node.state],
        version=node.version,
        pools=[pool.report for pool in node.pools.values() if isinstance(pool.report, pool_pb2.Pool)],
        labels=dict(node.labels),
        staged_models=[
            node_pb2.StagedModel(source=source, size_mib=size) for source, size in sorted(node.staged.items())
        ],
        register_time=_timestamp(wall - timedelta(seconds=now - node.registered_at)),
        last_report_age_ms=max(0, round((now - node.last_report_at) * 1000)),
    )


def worker_to_proto(worker: Worker) -> worker_pb2.Worker:
    """What the node reported last, with the brain's own view of where the worker is in its life."""
    shown = worker_pb2.Worker(spec=from_spec(worker.spec), node_id=worker.node_id)
    if isinstance(worker.report, worker_pb2.Worker):
        shown.CopyFrom(worker.report)
    shown.node_id = worker.node_id
    shown.state = _WORKER_STATES[worker.state]
    if worker.state is WorkerState.READY:
        shown.stats.slots_busy = len(worker.attempts)
    return shown


def _ledger(state: BrainState, node: Node, device: Device) -> fleet_service_pb2.DeviceLedger:
    key = (node.node_id, device.device_id)
    return fleet_service_pb2.DeviceLedger(
        device=_report_of(device),
        node_id=node.node_id,
        reserved_mib=state.ledger.held(key),
        available_mib=max(0, state.ledger.available(key)),
        worker_ids=state.ledger.loads_on(key),
    )


def _report_of(device: Device) -> device_pb2.Device:
    assert isinstance(device.report, device_pb2.Device)  # convert.nodes put it there
    return device.report


def _by_index(node: Node) -> list[Device]:
    return sorted(node.devices.values(), key=lambda device: (device.index, device.device_id))


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
