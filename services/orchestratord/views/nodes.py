"""Nodes, and devices with what the ledger has of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestratord.core.facts.fleet import Device, Node, NodeState, Worker
from orchestratord.core.state import BrainState
from orchestratord.views import pools
from orchestratord.views.pools import PoolState, PoolView


class ShownState(StrEnum):
    """Whether a node can be used: as its link says, and of one that can be reached, as its pools do."""

    JOINING = "JOINING"
    READY = "READY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"
    SUSPECT = "SUSPECT"
    LOST = "LOST"
    AWAITED = "AWAITED"


@dataclass(frozen=True, slots=True)
class NodeView:
    node: Node
    state: ShownState
    pools: Sequence[PoolView]
    registered_ago_s: float
    reported_ago_s: float


@dataclass(frozen=True, slots=True)
class DeviceView:
    """`is_released`: its owner took it back, which the node does not know."""

    device: Device
    is_released: bool


@dataclass(frozen=True, slots=True)
class NodeWithContents:
    node: NodeView
    devices: Sequence[DeviceView]
    workers: Sequence[Worker]


@dataclass(frozen=True, slots=True)
class LedgerView:
    """Memory in MiB. `release_ends_in_s` is None for a device that is not released, or until it is resumed."""

    node_id: str
    device: DeviceView
    reserved_mib: int
    available_mib: int
    returning_mib: int
    worker_ids: Sequence[str]
    release_ends_in_s: float | None


def view(state: BrainState, node: Node, now: float) -> NodeView:
    """`now` is on the brain's clock."""
    return NodeView(
        node=node,
        state=state_of(state, node),
        pools=[pools.view(state, node.pools[pool_id]) for pool_id in sorted(node.pools)],
        registered_ago_s=now - node.registered_at,
        reported_ago_s=max(0.0, now - node.last_report_at),
    )


def state_of(state: BrainState, node: Node) -> ShownState:
    pool_states = {pools.view(state, pool).state for pool in node.pools.values()}
    if node.state is not NodeState.READY or not pool_states or PoolState.READY in pool_states:
        return ShownState[node.state.name]
    return ShownState.DRAINING if PoolState.DRAINING in pool_states else ShownState.DRAINED


def with_contents(state: BrainState, node: Node, now: float) -> NodeWithContents:
    """A node with its devices and workers, for a caller who asks for one node."""
    devices = [_device(state, node, device) for device in _by_index(node)]
    return NodeWithContents(view(state, node, now), devices, state.fleet.workers_on(node.node_id))


def ledger(state: BrainState, node: Node, now: float) -> list[LedgerView]:
    return [_account(state, node, device, now) for device in _by_index(node)]


def _account(state: BrainState, node: Node, device: Device, now: float) -> LedgerView:
    key = (node.node_id, device.device_id)
    due = state.released.due_at(key)
    return LedgerView(
        node_id=node.node_id,
        device=_device(state, node, device),
        reserved_mib=state.ledger.held(key),
        available_mib=max(0, state.ledger.available(key)),
        returning_mib=state.ledger.returning(key),
        worker_ids=state.ledger.loads_on(key),
        release_ends_in_s=None if due is None else due - now,
    )


def _device(state: BrainState, node: Node, device: Device) -> DeviceView:
    return DeviceView(device, (node.node_id, device.device_id) in state.released)


def _by_index(node: Node) -> list[Device]:
    return sorted(node.devices.values(), key=lambda device: (device.index, device.device_id))
