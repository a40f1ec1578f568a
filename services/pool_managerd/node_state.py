"""Everything that there is on this node at one moment, and what of it changed between two moments. Pure."""

from dataclasses import dataclass, replace

from pool_managerd.devices.device import Device
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.saved_place import SavedState
from pool_managerd.workers.status import WorkerStatus


@dataclass(frozen=True, slots=True)
class Pool:
    """Devices that are managed together. By default all of a node's, under the node's name."""

    pool_id: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """`full`: what is missing here is gone. Otherwise only what changed, and then no pools and no models.

    `active` are workers of which only the stats changed. `saved` is None where that did not change.
    """

    full: bool = True
    devices: tuple[Device, ...] = ()
    pools: tuple[Pool, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    models: tuple[LocatedModel, ...] = ()
    active: tuple[WorkerStatus, ...] = ()
    saved: SavedState | None = None


def changes(before: NodeState, now: NodeState) -> NodeState:
    """What a reader that has `before` needs. The full state, where something vanished or is only reported in full."""
    if before.pools != now.pools or before.models != now.models or _vanished(before, now):
        return now
    known_devices = {device.device_id: device for device in before.devices}
    known_workers = {worker.spec.worker_id: worker for worker in before.workers}
    changed = [worker for worker in now.workers if worker != known_workers.get(worker.spec.worker_id)]
    active = [worker for worker in changed if _only_does_more(known_workers.get(worker.spec.worker_id), worker)]
    return NodeState(
        full=False,
        devices=tuple(device for device in now.devices if device != known_devices.get(device.device_id)),
        workers=tuple(worker for worker in changed if worker not in active),
        active=tuple(active),
        saved=now.saved if now.saved != before.saved else None,
    )


def is_empty(state: NodeState) -> bool:
    return not (state.full or state.devices or state.workers or state.active or state.saved is not None)


def _vanished(before: NodeState, now: NodeState) -> bool:
    workers = {worker.spec.worker_id for worker in now.workers}
    devices = {device.device_id for device in now.devices}
    return any(worker.spec.worker_id not in workers for worker in before.workers) or any(
        device.device_id not in devices for device in before.devices
    )


def _only_does_more(before: WorkerStatus | None, now: WorkerStatus) -> bool:
    return before is not None and replace(before, stats=now.stats) == now
