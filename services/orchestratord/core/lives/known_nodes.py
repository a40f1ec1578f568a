"""Nodes are kept, so that after a restart of the orchestrator they are expected back as they were."""

from collections.abc import Iterable

from orchestratord.core.effects import LeaveNode, PersistRecord
from orchestratord.core.facts.fleet import Device, Node, NodeState, Pool
from orchestratord.core.facts.known_node import KnownDevice, KnownNode, KnownPool
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import forgetting
from orchestratord.core.state import BrainState


def device_subject(node_id: str, device_id: str) -> str:
    """Of a timer for one device; that for the node itself is its id, which has no "/"."""
    return f"{node_id}/{device_id}"


def node_of_subject(subject: str) -> str:
    return subject.partition("/")[0]


def keep(state: BrainState, node: Node) -> None:
    """After a full report."""
    known = _known_of(node)
    if known != node.known:
        state.emit(PersistRecord(node.known, known))
        node.known = known


def remove(state: BrainState, node: Node) -> None:
    """It is no node any more, once its workers, loads and drains are gone or another node's."""
    if node.known is not None:
        state.emit(PersistRecord(node.known, None))
        node.known = None
    forget_devices(state, node, node.devices)
    del state.fleet.nodes[node.node_id]
    forgetting.node_gone(state, node.node_id)
    state.emit(LeaveNode(node.node_id))


def forget_devices(state: BrainState, node: Node, device_ids: Iterable[str]) -> None:
    for device_id in list(device_ids):
        state.ledger.forget_device((node.node_id, device_id))
        del node.devices[device_id]
        node.failed_at.pop(device_id, None)
        state.timers.cancel(device_subject(node.node_id, device_id), TimerKind.NODE_GRACE)


def restore(state: BrainState, record: KnownNode) -> None:
    node = _awaited(record, state.now)
    state.fleet.nodes[node.node_id] = node
    for device in node.devices.values():
        state.ledger.set_device((node.node_id, device.device_id), device.total_mib, device.reserve_mib, 0)


def _known_of(node: Node) -> KnownNode:
    return KnownNode(
        node_id=node.node_id,
        host_id=node.host_id,
        address=node.address,
        version=node.version,
        labels=dict(node.labels),
        devices=tuple(_device(node.devices[device_id]) for device_id in sorted(node.devices)),
        pools=tuple(KnownPool(pool_id, node.pools[pool_id].device_ids) for pool_id in sorted(node.pools)),
        offered=dict(node.offered),
        former=node.former,
    )


def _awaited(known: KnownNode, now: float) -> Node:
    """The node as it was, until it registers."""
    node = Node(
        node_id=known.node_id,
        session="",
        instance_id="",
        address=known.address,
        version=known.version,
        registered_at=now,
        last_report_at=now,
        labels=known.labels,
        state=NodeState.AWAITED,
        host_id=known.host_id,
        former=known.former,
        known=known,
    )
    node.devices = {device.device_id: _as_it_was(device) for device in known.devices}
    node.pools = {pool.pool_id: Pool(pool.pool_id, known.node_id, pool.device_ids) for pool in known.pools}
    node.offered = known.offered
    return node


def _device(device: Device) -> KnownDevice:
    return KnownDevice(
        device_id=device.device_id,
        kind=device.kind,
        index=device.index,
        name=device.name,
        total_mib=device.total_mib,
        reserve_mib=device.reserve_mib,
        compute_capability=device.compute_capability,
        engines=device.engines,
    )


def _as_it_was(known: KnownDevice) -> Device:
    return Device(
        device_id=known.device_id,
        kind=known.kind,
        index=known.index,
        name=known.name,
        usable=True,
        total_mib=known.total_mib,
        others_mib=0,
        reserve_mib=known.reserve_mib,
        compute_capability=known.compute_capability,
        engines=known.engines,
    )
