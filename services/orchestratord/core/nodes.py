"""Nodes come, report and fall silent."""

from llorch.errors import Aborted, FailedPrecondition, Reason
from orchestratord.core import ending, loading
from orchestratord.core.events import NodeForgotten, NodeRegistered, NodeReported
from orchestratord.core.fleet import Node, NodeState, Snapshot, Worker, WorkerReported, WorkerState
from orchestratord.core.state import BrainState
from orchestratord.core.task import TaskError


def register(state: BrainState, event: NodeRegistered) -> None:
    """A node's link begins. The newest link wins; what still comes over an older one is dropped."""
    old = state.fleet.nodes.get(event.node_id)
    node = Node(
        node_id=event.node_id,
        session=event.session,
        address=event.address,
        version=event.version,
        registered_at=state.now,
        last_report_at=state.now,
        labels=event.labels,
    )
    if old is not None:
        node.devices, node.staged = old.devices, old.staged
    state.fleet.nodes[event.node_id] = node
    _take_in(state, node, event.snapshot, applied_command_seq=0)


def report(state: BrainState, event: NodeReported) -> None:
    node = state.fleet.nodes.get(event.node_id)
    if node is None or node.session != event.session:
        raise Aborted(
            Reason.STALE_SESSION,
            f"node '{event.node_id}' has registered anew since this link began; this link is over",
        )
    _take_in(state, node, event.snapshot, event.applied_command_seq)


def forget(state: BrainState, event: NodeForgotten) -> None:
    node = state.fleet.node(event.node_id)
    if node.state is not NodeState.SUSPECT:
        raise FailedPrecondition(
            Reason.NOT_PERMITTED,
            f"node '{node.node_id}' is connected; stop its pool manager first, then forget it",
        )
    for worker in state.fleet.workers_on(node.node_id):
        loading.worker_gone(state, worker, f"node '{node.node_id}' was forgotten")
    for load in [load for load in state.loads.values() if load.node_id == node.node_id]:
        del state.loads[load.model]
    for device_id in node.devices:
        state.ledger.set_device((node.node_id, device_id), 0, 0, 0)
    del state.fleet.nodes[node.node_id]


def check_leases(state: BrainState) -> None:
    """A node that is silent for its lease gets nothing new. What runs there goes on."""
    for node in state.fleet.nodes.values():
        if state.now - node.last_report_at >= state.config.node_lease_s:
            node.state = NodeState.SUSPECT
    _fail_if_no_device_comes(state)


def renew_leases(state: BrainState) -> None:
    """Our own loop stood still, so nobody could be heard: everybody gets a fresh lease."""
    for node in state.fleet.nodes.values():
        node.last_report_at = state.now
    for worker in state.fleet.workers.values():
        if worker.reattach_until is not None:
            worker.reattach_until = state.now + state.config.reattach_s


def _take_in(state: BrainState, node: Node, snapshot: Snapshot, applied_command_seq: int) -> None:
    node.last_report_at = state.now
    node.state = NodeState.READY
    for device in snapshot.devices:
        node.devices[device.device_id] = device
        usable_mib = device.total_mib if device.usable else 0
        state.ledger.set_device((node.node_id, device.device_id), usable_mib, device.reserve_mib, device.others_mib)
    if snapshot.full:
        node.pools = snapshot.pools
        node.staged.update(snapshot.staged)
        _notice_missing(state, node, snapshot, applied_command_seq)
    for reported in snapshot.workers:
        _take_in_worker(state, node, reported)
    state.look_again = True


def _take_in_worker(state: BrainState, node: Node, reported: WorkerReported) -> None:
    worker = state.fleet.workers.get(reported.spec.worker_id)
    if reported.state is WorkerState.ENDED:
        if worker is not None:
            _worker_ended(state, worker, reported)
        return
    if worker is None:
        worker = _adopt(state, node, reported)
    worker.report = reported.report
    is_news = worker.state is WorkerState.STARTING
    if reported.state is WorkerState.READY and is_news and reported.engine and reported.endpoint:
        loading.worker_ready(state, worker, reported.engine, reported.endpoint)


def _adopt(state: BrainState, node: Node, reported: WorkerReported) -> Worker:
    """A worker that runs already, started before this orchestrator was: it is charged and used."""
    worker = Worker(reported.spec, node.node_id, asked_at=state.now, start_seq=0)
    state.fleet.add_worker(worker)
    claims = zip(reported.spec.device_ids, reported.spec.reservation_mib, strict=False)
    state.ledger.charge(worker.worker_id, {(node.node_id, device_id): mib for device_id, mib in claims})
    return worker


def _worker_ended(state: BrainState, worker: Worker, reported: WorkerReported) -> None:
    if reported.failure is None or worker.state is WorkerState.STOPPING:
        loading.worker_gone(state, worker, "the worker that ran the task was stopped")
    else:
        loading.worker_failed(state, worker, *reported.failure)


def _notice_missing(state: BrainState, node: Node, snapshot: Snapshot, applied_command_seq: int) -> None:
    """A worker that a full report does not name is gone, if the report knows of the command that started it."""
    named = {reported.spec.worker_id for reported in snapshot.workers}
    for worker in state.fleet.workers_on(node.node_id):
        if worker.worker_id in named or worker.start_seq is None or worker.start_seq > applied_command_seq:
            continue
        loading.worker_gone(state, worker, "the worker that ran the task is gone")


def _fail_if_no_device_comes(state: BrainState) -> None:
    """Nobody waits for ever: without any usable node for the grace, waiting tasks end with the reason."""
    if state.fleet.ready_nodes() or not len(state.queue):
        state.no_device_since = None
        return
    if state.no_device_since is None:
        state.no_device_since = state.now
    if state.now - state.no_device_since < state.config.no_device_grace_s:
        return
    error = TaskError(Reason.NO_DEVICE, "no GPU host is connected any more; see to pool-managerd there", retryable=True)
    for model in list(state.queue.models()):
        ending.fail_waiting(state, model, error)
