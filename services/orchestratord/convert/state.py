"""The state at a glance: nodes, devices with their ledger, workers, queues."""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import device_pb2, fleet_service_pb2, node_pb2, saved_session_pb2, worker_pb2
from llorch.redaction import redacted
from llorch.rpc import worker_spec
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.enum_tables import DEVICE_KINDS, WORKER_STATES
from llorch.worker_state import WorkerState
from orchestratord.convert.loads import failure_to_proto, load_to_proto
from orchestratord.convert.pools import pool_to_proto
from orchestratord.core.facts.fleet import Device, Worker
from orchestratord.views import workers as view_workers
from orchestratord.views.nodes import DeviceView, LedgerView, NodeView, NodeWithContents, ShownState
from orchestratord.views.state import StateView

_NODE_STATES = EnumTable(ShownState, node_pb2.NodeState)


def to_proto(
    view: StateView, *, cluster_id: str, control_epoch: int, version: str, wall: datetime
) -> fleet_service_pb2.State:
    """`wall` is now."""
    return fleet_service_pb2.State(
        time=_timestamp(wall),
        cluster_id=cluster_id,
        control_epoch=control_epoch,
        version=version,
        nodes=[node_to_proto(node, wall) for node in view.nodes],
        devices=[_ledger(account, wall) for account in view.devices],
        workers=[worker_to_proto(worker) for worker in view.workers],
        queues=[
            fleet_service_pb2.QueueState(priority=queue.priority, depth=queue.depth, capacity=queue.capacity)
            for queue in view.queues
        ],
        tasks_running=view.tasks_running,
        loads=[load_to_proto(load) for load in view.loads],
        load_failures=[failure_to_proto(failure, wall) for failure in view.load_failures],
    )


def node_with_contents_to_proto(view: NodeWithContents, wall: datetime) -> node_pb2.Node:
    shown = node_to_proto(view.node, wall)
    shown.devices.extend(_device(device) for device in view.devices)
    shown.workers.extend(worker_to_proto(worker) for worker in view.workers)
    return shown


def node_to_proto(view: NodeView, wall: datetime) -> node_pb2.Node:
    node = view.node
    return node_pb2.Node(
        node_id=node.node_id,
        state=_NODE_STATES.to_proto(view.state),
        version=node.version,
        pools=[pool_to_proto(pool) for pool in view.pools],
        labels=dict(node.labels),
        staged_models=[
            node_pb2.StagedModel(source=redacted(source), size_mib=size) for source, size in sorted(node.staged.items())
        ],
        register_time=_timestamp(wall - timedelta(seconds=view.registered_ago_s)),
        last_report_age_ms=round(view.reported_ago_s * 1000),
        trouble=node.trouble,
        saved_sessions=saved_session_pb2.SavedSessions(
            sequences=node.saved_sessions.sequences,
            size_mib=node.saved_sessions.size_mib,
            budget_mib=node.saved_sessions.budget_mib,
        ),
    )


def worker_to_proto(worker: Worker) -> worker_pb2.Worker:
    """What the node reported last, with the brain's own state of the worker."""
    shown = worker_pb2.Worker(spec=worker_spec.to_proto(worker.spec), node_id=worker.node_id)
    if isinstance(worker.report, worker_pb2.Worker):
        shown.CopyFrom(worker.report)
    shown.spec.source = redacted(shown.spec.source)
    shown.node_id = worker.node_id
    shown.state = WORKER_STATES.to_proto(view_workers.state_of(worker))
    if worker.state is WorkerState.READY:
        shown.stats.slots_busy = len(worker.attempts)
        if not worker.attempts:  # the report is of a moment before
            shown.stats.tokens_per_second = 0
    return shown


def _ledger(view: LedgerView, wall: datetime) -> fleet_service_pb2.DeviceLedger:
    ends_in_s = view.release_ends_in_s
    return fleet_service_pb2.DeviceLedger(
        device=_device(view.device),
        node_id=view.node_id,
        reserved_mib=view.reserved_mib,
        available_mib=view.available_mib,
        worker_ids=view.worker_ids,
        returning_mib=view.returning_mib,
        release_end_time=None if ends_in_s is None else _timestamp(wall + timedelta(seconds=ends_in_s)),
    )


def _device(view: DeviceView) -> device_pb2.Device:
    """As its node reports it, unless its owner took it back."""
    report = view.device.report
    if not isinstance(report, device_pb2.Device):
        report = _as_it_was(view.device)
    if not view.is_released:
        return report
    shown = device_pb2.Device()
    shown.CopyFrom(report)
    shown.state = device_pb2.DEVICE_STATE_RELEASED
    return shown


def _as_it_was(device: Device) -> device_pb2.Device:
    """Of a node that has not reported since the start of the orchestrator: what it does now is not known."""
    return device_pb2.Device(
        device_id=device.device_id,
        kind=DEVICE_KINDS.to_proto(device.kind),
        index=device.index,
        name=device.name,
        memory_total_mib=device.total_mib,
        reserve_mib=device.reserve_mib,
        compute_capability=device.compute_capability,
        engines=device.engines,
    )


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
