"""Nodes come, report and fall silent.

A worker belongs to the node that started it, and a card to one node at a time: what another one claims is refused.
"""

import math
from functools import partial

from llorch.device_kind import DeviceKind
from llorch.errors import Aborted, FailedPrecondition, Reason, ResourceExhausted
from llorch.worker_state import TERMINAL, WorkerState
from orchestratord.core.effects import PersistRecord, WarnOfNode
from orchestratord.core.events import NodeForgotten, NodeRegistered, NodeReported, NodeTroubled
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.fleet import (
    MOST_DEVICES,
    MOST_NODES,
    MOST_WORKERS,
    Device,
    Leaving,
    Node,
    NodeState,
    Snapshot,
    Worker,
    WorkerReported,
)
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import TaskError
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import (
    assignment_changes,
    devices,
    file_looks,
    found_runs,
    known_nodes,
    model_loading,
    model_unloading,
    node_renaming,
    offered_models,
    pools,
    worker_life,
)
from orchestratord.core.placement.availability import Wait
from orchestratord.core.state import BrainState

_CLAIMED_TWICE = "which is connected or may come back: two hosts claim one thing"

_REFUSALS_TOLD = 64
"""Claims of one link that are warned of; all further ones are refused without a word."""


def register(state: BrainState, event: NodeRegistered) -> None:
    """A node's link begins. The newest link wins; what still comes over an older one is dropped.

    A pool manager that was restarted knows no earlier commands; workers that it does not report are gone.
    """
    _make_room(state, event)
    old = state.fleet.nodes.get(event.node_id)
    node = Node(
        node_id=event.node_id,
        session=event.session,
        instance_id=event.instance_id,
        address=event.address,
        version=event.version,
        registered_at=state.now,
        last_report_at=state.now,
        labels=event.labels,
        host_id=event.host_id,
        boot_id=event.boot_id,
    )
    if old is not None:
        node.devices, node.known, node.failed_at, node.trouble = old.devices, old.known, old.failed_at, old.trouble
        node.former = old.former
        node.was_rebooted = node.boot_id not in ("", old.boot_id) and old.boot_id != ""
    state.fleet.nodes[event.node_id] = node
    is_renamed = node_renaming.take_over(state, node)
    is_restarted = is_renamed or (old is not None and old.instance_id != event.instance_id)
    if old is not None and not is_restarted:  # a pool manager that comes anew may have another engine or driver
        node.loaded_as = old.loaded_as
    _take_in(state, node, event.snapshot, math.inf if is_restarted else event.applied_command_seq)
    pools.workers_known(state, node)
    assignment_changes.node_came(state)
    file_looks.node_came(state, node)
    if is_renamed:
        assignment_changes.workers_came_along(state, node)


def report(state: BrainState, event: NodeReported) -> None:
    node = state.fleet.nodes.get(event.node_id)
    if node is None or node.session != event.session:
        raise Aborted(
            Reason.STALE_SESSION,
            f"node '{event.node_id}' has registered anew since this link began; this link is over",
        )
    node.trouble = ""
    _take_in(state, node, event.snapshot, event.applied_command_seq)


def troubled(state: BrainState, event: NodeTroubled) -> None:
    node = state.fleet.nodes.get(event.node_id)
    if node is not None:
        node.trouble = event.trouble


def forget(state: BrainState, event: NodeForgotten) -> None:
    node = state.fleet.node(event.node_id)
    if node.state is NodeState.READY:
        raise FailedPrecondition(
            Reason.OTHER_STATE_NEEDED,
            f"node '{node.node_id}' is connected; stop its pool manager first, then forget it",
        )
    records = [node.known, *state.drains.on_node(node.node_id)]
    changes = (RecordChange(record, None) for record in records if record is not None)
    state.propose(partial(_forget, state, node.node_id), *changes)


def _forget(state: BrainState, node_id: str) -> None:
    """It may have come back while that was written; then it is kept anew with its next full report."""
    node = state.fleet.nodes.get(node_id)
    if node is None:
        return
    for drain in state.drains.on_node(node_id):
        pools.take_out(state, drain)
    node.known = None
    if node.state is not NodeState.READY:
        _remove(state, node)


def _remove(state: BrainState, node: Node) -> None:
    for worker in state.fleet.workers_on(node.node_id):
        worker_life.gone(state, worker, Loss.NODE, f"node '{node.node_id}' was forgotten")
    model_loading.give_up_loads(state, node.node_id)
    for failure in [failure for failure in state.load_failures.values() if failure.node_id == node.node_id]:
        del state.load_failures[failure.model]
    known_nodes.remove(state, node)
    devices.let_go_of_forgotten(state)
    state.look_again = True
    offered_models.withdraw_what_is_gone(state)


def _make_room(state: BrainState, event: NodeRegistered) -> None:
    """Hosts may come with a new name each time. The one that was silent for longest goes, as if its operator had
    forgotten it; a newcomer is refused where all are connected.
    """
    others = [node for node in state.fleet.nodes.values() if not node.host_id or node.host_id != event.host_id]
    while event.node_id not in state.fleet.nodes and len(others) >= MOST_NODES:
        away = [node for node in others if node.state is not NodeState.READY and not _is_heard_of(state, node)]
        if not away:
            raise ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                f"this orchestrator has {len(others)} nodes, all connected, and takes no more; connect this one to "
                "another orchestrator",
            )
        oldest = min(away, key=lambda node: (node.last_report_at, node.node_id))
        others.remove(oldest)
        for drain in state.drains.on_node(oldest.node_id):
            pools.take_out(state, drain)
            state.emit(PersistRecord(drain, None))
        _remove(state, oldest)
        silent_s = round(state.now - oldest.last_report_at)
        state.emit(
            WarnOfNode(
                oldest.node_id,
                f"node '{oldest.node_id}' was silent for {silent_s} s and is forgotten for '{event.node_id}': this "
                f"orchestrator keeps {MOST_NODES} nodes; give hosts names that stay (node_id in [pool_manager])",
            )
        )


def check_leases(state: BrainState) -> None:
    """A node that is silent for its lease gets nothing new. What runs there goes on; waiting tasks go elsewhere."""
    for node in state.fleet.nodes.values():
        silent_s = state.now - node.last_report_at
        if node.state is NodeState.SUSPECT:
            if silent_s >= state.config.node_lost_s and not _is_heard_of(state, node):
                _lose(state, node)
        elif node.state is NodeState.AWAITED:
            if silent_s >= state.config.recovery_window_s:
                _lose(state, node)
        elif node.state is not NodeState.LOST and silent_s >= state.config.node_lease_s:
            model_loading.suspect(state, node)
            model_loading.give_up_loads(state, node.node_id)
    _fail_if_no_device_comes(state)


def grace_over(state: BrainState, subject: str) -> None:
    """The node, or a device of it, was silent for the whole grace: tasks stop waiting for it, unless it is back."""
    if known_nodes.node_of_subject(subject) in state.fleet.nodes:
        state.look_again = True


def renew_leases(state: BrainState) -> None:
    """The orchestrator's own loop stood still, so it could receive no reports: every node gets a fresh lease that was
    not silent before.
    """
    for node in state.fleet.nodes.values():
        if node.state is NodeState.READY:
            node.last_report_at = state.now
    for worker in state.fleet.workers.values():
        if worker.reattach_until is not None:
            worker.reattach_until = state.now + state.config.reattach_s


def _is_heard_of(state: BrainState, node: Node) -> bool:
    """A pool manager may be away while its workers go on; then the machine is not lost."""
    return any(worker.attached for worker in state.fleet.workers_on(node.node_id))


def _lose(state: BrainState, node: Node) -> None:
    """Tasks stop waiting for its workers. If it comes back with them, they are adopted like unknown workers."""
    node.state = NodeState.LOST
    for worker in state.fleet.workers_on(node.node_id):
        worker_life.gone(state, worker, Loss.NODE, f"node '{node.node_id}' is lost")
    pools.workers_known(state, node)
    state.look_again = True


def _take_in(state: BrainState, node: Node, snapshot: Snapshot, applied_command_seq: float) -> None:
    """The brain looks again for places for waiting tasks only if this may free one: most reports do not."""
    node.last_report_at = state.now
    if snapshot.saved_sessions is not None:
        node.saved_sessions = snapshot.saved_sessions
    if node.state is not NodeState.READY:
        worker_life.give_time_to_reattach(state, node.node_id)
        node.state = NodeState.READY
        state.look_again = True
    for device in snapshot.devices:
        if device.device_id not in node.devices:
            if not _is_its_own(state, node, device):
                continue
            if device.kind is DeviceKind.CUDA:
                devices.card_came(state, node, device.device_id)
        _take_in_device(state, node, device)
    if snapshot.full:
        known_nodes.forget_devices(state, node, node.devices.keys() - {device.device_id for device in snapshot.devices})
        node.pools = {pool.pool_id: pool for pool in snapshot.pools}
        pools.follow_devices(state, node)
        if node.staged != snapshot.staged:
            node.staged = dict(snapshot.staged)
            state.look_again = True
        node.offered = snapshot.offered
        offered_models.take_in(state, node)
        _notice_missing(state, node, snapshot, applied_command_seq)
        known_nodes.keep(state, node)
    _take_in_workers(state, node, snapshot)
    found_runs.look_whether_all_told(state)


def _take_in_workers(state: BrainState, node: Node, snapshot: Snapshot) -> None:
    for reported in snapshot.workers:
        worker = state.fleet.workers.get(reported.spec.worker_id)
        if worker is None and len(state.fleet.workers_on(node.node_id)) >= MOST_WORKERS:
            _refuse(state, node, "workers", f"it has more than {MOST_WORKERS} workers")
        elif worker is None or worker.node_id == node.node_id or node_renaming.came_with_its_card(state, node, worker):
            _take_in_worker(state, node, worker, reported)
        else:
            what = f"worker '{worker.worker_id}' is one of node '{worker.node_id}'"
            _refuse(state, node, worker.worker_id, f"{what}, {_CLAIMED_TWICE}")


def _take_in_device(state: BrainState, node: Node, device: Device) -> None:
    key = (node.node_id, device.device_id)
    before, had_mib = node.devices.get(device.device_id), state.ledger.available(key)
    node.devices[device.device_id] = device
    usable_mib = device.total_mib if device.usable else 0
    state.ledger.set_device(key, usable_mib, device.reserve_mib, device.others_mib)
    if device.usable:
        node.failed_at.pop(device.device_id, None)
    elif device.device_id not in node.failed_at:
        node.failed_at[device.device_id] = state.now
        subject = known_nodes.device_subject(node.node_id, device.device_id)
        state.timers.at(state.now + state.config.no_device_grace_s, TimerKind.NODE_GRACE, subject)
    if before is None or before.usable is not device.usable or state.ledger.available(key) > had_mib:
        state.look_again = True
    if device.usable:
        devices.notice_pressure(state, key)


def _is_its_own(state: BrainState, node: Node, device: Device) -> bool:
    """Of a card that is new to the node. It may have moved from a node that is away, where it is not any more then."""
    if len(node.devices) >= MOST_DEVICES:
        _refuse(state, node, "devices", f"it has more than {MOST_DEVICES} devices")
        return False
    if device.kind is not DeviceKind.CUDA:  # ids of others are unique on their node alone
        return True
    for other in state.fleet.nodes.values():
        if other is node or device.device_id not in other.devices:
            continue
        if other.state is NodeState.READY:
            what = f"{device.name} ({device.device_id}) is of node '{other.node_id}'"
            _refuse(state, node, device.device_id, f"{what}, {_CLAIMED_TWICE}")
            return False
        known_nodes.forget_devices(state, other, [device.device_id])
    return True


def _refuse(state: BrainState, node: Node, thing: str, why: str) -> None:
    """What is told again and again is refused silently from the second time on."""
    if thing not in node.refused and len(node.refused) < _REFUSALS_TOLD:
        node.refused.add(thing)
        state.emit(WarnOfNode(node.node_id, why))


def _take_in_worker(state: BrainState, node: Node, worker: Worker | None, reported: WorkerReported) -> None:
    if reported.state in TERMINAL:
        if worker is not None:
            _worker_ended(state, worker, reported)
        return
    is_new = worker is None
    if worker is None:
        worker = _adopt(state, node, reported)
        devices.show_out(state, worker)
        pools.show_out(state, worker)
    worker.start_seq = 0  # the node has it, so a full report without it means that it is gone
    worker.report, worker.answers = reported.report, reported.answers
    state.warmth.keeps(worker.worker_id, max(worker.slots, reported.warm_prompts + len(worker.attempts)))
    is_ready_now = (worker.state, reported.state) == (WorkerState.STARTING, WorkerState.READY)
    if reported.state is WorkerState.STOPPING:
        if worker.state is WorkerState.READY:
            worker.state = WorkerState.STOPPING
    elif worker.state is WorkerState.STOPPING and not is_new:
        # It has not received the stop: that got lost, or this report was sent before it.
        model_unloading.tell_to_end(state, worker)
    elif is_ready_now and reported.engine and reported.endpoint:
        worker_life.became_ready(state, worker, reported.engine, reported.endpoint)
    elif worker.state is WorkerState.READY and reported.endpoint and reported.endpoint != worker.endpoint:
        worker_life.moved(state, worker, reported.endpoint)


def _adopt(state: BrainState, node: Node, reported: WorkerReported) -> Worker:
    """A worker that runs already, from before this orchestrator's start: it is charged and used."""
    stopping = reported.state is WorkerState.STOPPING
    begins_as = WorkerState.STOPPING if stopping else WorkerState.STARTING
    worker = Worker(reported.spec, node.node_id, asked_at=state.now, state=begins_as, start_seq=0, was_found=True)
    state.fleet.add_worker(worker)
    claims = zip(reported.spec.device_ids, reported.spec.reservation_mib, strict=False)
    state.ledger.charge(worker.worker_id, {(node.node_id, device_id): mib for device_id, mib in claims})
    return worker


def _worker_ended(state: BrainState, worker: Worker, reported: WorkerReported) -> None:
    if reported.failure is not None:
        worker_life.failed(state, worker, *reported.failure)
    elif worker.leaving is Leaving.STUCK and not worker.answers:
        worker_life.hung(state, worker)
    else:
        worker_life.gone(state, worker, Loss.STOPPED, "the worker that ran the task was stopped")


def _notice_missing(state: BrainState, node: Node, snapshot: Snapshot, applied_command_seq: float) -> None:
    """A worker that a full report does not name is gone, if the report knows of the command that started it.

    A worker that should end, and may still be started by a command under way, is told to end again: a node that has
    received that never starts it.
    """
    named = {reported.spec.worker_id for reported in snapshot.workers}
    for worker in state.fleet.workers_on(node.node_id):
        if worker.worker_id in named or worker.start_seq is None:
            continue
        if worker.start_seq <= applied_command_seq:
            if node.was_rebooted:
                worker_life.gone(state, worker, Loss.POWER, f"the machine of node '{node.node_id}' was started again")
            else:
                worker_life.gone(state, worker, Loss.NODE, "the worker that ran the task is gone")
        elif worker.state is WorkerState.STOPPING:
            model_unloading.tell_to_end(state, worker)


def _fail_if_no_device_comes(state: BrainState) -> None:
    """Whether tasks wait for devices that are known, `availability` says. If none is, they wait for the grace."""
    has_device = any(node.devices for node in state.fleet.nodes.values())
    if has_device or not len(state.queue) or state.now < state.recovering_until:
        state.no_device_since = None
        return
    if state.no_device_since is None:
        state.no_device_since = state.now
    if state.now - state.no_device_since < state.config.no_device_grace_s:
        return
    message = "no GPU host with a device is connected any more; see `llorch gpus`, and to pool-managerd there"
    error, wait = TaskError(Reason.NO_DEVICE, message), Wait(("a GPU host",), "a GPU host")
    for model in list(state.queue.models()):
        model_loading.refuse(state, [state.tasks[task_id] for task_id in state.queue.waiting_for(model)], error, wait)
