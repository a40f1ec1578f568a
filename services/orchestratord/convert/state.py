"""The state at a glance: nodes, devices with their ledger, workers, queues."""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import device_pb2, fleet_service_pb2, node_pb2, worker_pb2
from llorch.rpc import worker_spec
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.enum_tables import WORKER_STATES
from llorch.worker_state import WorkerState
from orchestratord.convert.loads import failure_to_proto, load_to_proto
from orchestratord.convert.pools import pool_to_proto
from orchestratord.core.facts.fleet import Device, Node, NodeState, Worker
from orchestratord.core.state import BrainState

_NODE_STATES = EnumTable(NodeState, node_pb2.NodeState, unused={"DRAINING"})


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
        nodes=[node_to_proto(state, node, now, wall) for node in nodes],
        devices=[_ledger(state, node, device, now, wall) for node in nodes for device in _by_index(node)],
        workers=[worker_to_proto(worker) for worker in sorted(state.fleet.workers.values(), key=lambda w: w.worker_id)],
        queues=[
            fleet_service_pb2.QueueState(
                priority=priority, depth=state.queue.depth(priority), capacity=state.queue.capacity
            )
            for priority in state.queue.priorities
        ],
        tasks_running=state.running,
        loads=[load_to_proto(state, load) for load in sorted(state.loads.values(), key=lambda load: load.load_id)],
        load_failures=[failure_to_proto(state.load_failures[name], now, wall) for name in sorted(state.load_failures)],
    )


def node_with_contents(state: BrainState, node: Node, now: float, wall: datetime) -> node_pb2.Node:
    """A node with its devices and workers, for those who ask for one node."""
    shown = node_to_proto(state, node, now, wall)
    shown.devices.extend(_device(state, node, device) for device in _by_index(node))
    shown.workers.extend(worker_to_proto(worker) for worker in state.fleet.workers_on(node.node_id))
    return shown


def node_to_proto(state: BrainState, node: Node, now: float, wall: datetime) -> node_pb2.Node:
    return node_pb2.Node(
        node_id=node.node_id,
        state=_node_state(state, node),
        version=node.version,
        pools=[pool_to_proto(state, node.pools[pool_id]) for pool_id in sorted(node.pools)],
        labels=dict(node.labels),
        staged_models=[
            node_pb2.StagedModel(source=source, size_mib=size) for source, size in sorted(node.staged.items())
        ],
        register_time=_timestamp(wall - timedelta(seconds=now - node.registered_at)),
        last_report_age_ms=max(0, round((now - node.last_report_at) * 1000)),
    )


def worker_to_proto(worker: Worker) -> worker_pb2.Worker:
    """What the node reported last, with the brain's own view of where the worker is in its life."""
    shown = worker_pb2.Worker(spec=worker_spec.to_proto(worker.spec), node_id=worker.node_id)
    if isinstance(worker.report, worker_pb2.Worker):
        shown.CopyFrom(worker.report)
    shown.node_id = worker.node_id
    shown.state = WORKER_STATES.to_proto(worker.state)
    if worker.state is WorkerState.READY and worker.leaving is not None:
        shown.state = worker_pb2.WORKER_STATE_DRAINING
    if worker.state is WorkerState.READY:
        shown.stats.slots_busy = len(worker.attempts)
    return shown


def _node_state(state: BrainState, node: Node) -> "node_pb2.NodeState.ValueType":
    """It is draining when everything that it has is."""
    is_emptied = bool(node.pools) and all(state.drains.find(pool_id) is not None for pool_id in node.pools)
    if node.state is NodeState.READY and is_emptied:
        return node_pb2.NODE_STATE_DRAINING
    return _NODE_STATES.to_proto(node.state)


def _ledger(
    state: BrainState, node: Node, device: Device, now: float, wall: datetime
) -> fleet_service_pb2.DeviceLedger:
    key = (node.node_id, device.device_id)
    due = state.released.due_at(key)
    return fleet_service_pb2.DeviceLedger(
        device=_device(state, node, device),
        node_id=node.node_id,
        reserved_mib=state.ledger.held(key),
        available_mib=max(0, state.ledger.available(key)),
        worker_ids=state.ledger.loads_on(key),
        returning_mib=state.ledger.returning(key),
        release_end_time=None if due is None else _timestamp(wall + timedelta(seconds=due - now)),
    )


def _device(state: BrainState, node: Node, device: Device) -> device_pb2.Device:
    """As its node reports it; that its owner took it back is known here alone."""
    assert isinstance(device.report, device_pb2.Device)  # convert.nodes put it there
    if (node.node_id, device.device_id) not in state.released:
        return device.report
    shown = device_pb2.Device()
    shown.CopyFrom(device.report)
    shown.state = device_pb2.DEVICE_STATE_RELEASED
    return shown


def _by_index(node: Node) -> list[Device]:
    return sorted(node.devices.values(), key=lambda device: (device.index, device.device_id))


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
