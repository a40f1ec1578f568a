"""Devices go back to their owners: when a caller releases them, and where another program takes memory."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from llorch.worker_state import WorkerState
from orchestratord.core.effects import PersistRecord
from orchestratord.core.events import DeviceReleaseAsked, DeviceResumeAsked
from orchestratord.core.facts.fleet import Leaving, Node, Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import model_loading, model_unloading, task_life
from orchestratord.core.placement import eviction, replicas
from orchestratord.core.state import BrainState

RELEASES_OF_FORGOTTEN_KEPT = 256

PRESSURE_LASTS_S = 2.0
"""Memory that a program takes for less time than this, or that a worker held that has just ended, evicts no worker."""


def release_asked(state: BrainState, event: DeviceReleaseAsked) -> list[str]:
    """Nothing is placed there any more; idle workers leave now, busy ones when their tasks have ended."""
    node = state.fleet.node(event.node_id)
    releases = [ReleasedDevice(node.node_id, device_id, event.until_ms) for device_id in event.device_ids]
    before = [state.released.find((node.node_id, device_id)) for device_id in event.device_ids]
    due = None if event.duration_s is None else state.now + event.duration_s
    changes = (RecordChange(*change) for change in zip(before, releases, strict=True))
    state.propose(partial(_release, state, before, releases, due), *changes)
    return [worker.worker_id for worker in state.fleet.workers_using(node.node_id, event.device_ids)]


def resume_asked(state: BrainState, event: DeviceResumeAsked) -> None:
    """Idempotent: a device that was not released stays as it is."""
    keys = [(event.node_id, device_id) for device_id in event.device_ids]
    changes = (RecordChange(released, None) for key in keys if (released := state.released.find(key)))
    state.propose(partial(_resume, state, keys), *changes)


def time_is_over(state: BrainState, subject: str) -> None:
    """The time for which the device was released has passed, unless it was released for longer meanwhile.

    Its record says when, so this waits for no store; a record that stays is over as well.
    """
    key = _key(subject)
    due = state.released.due_at(key)
    if due is not None and state.now >= due and (released := _take_out(state, key)):
        state.emit(PersistRecord(released, None))
        state.look_again = True


def show_out(state: BrainState, worker: Worker) -> None:
    """A worker was found on a released device: an earlier orchestrator process started it."""
    keys = [(worker.node_id, device_id) for device_id in worker.spec.device_ids]
    if any(key in state.released for key in keys):
        model_unloading.leave(state, worker, Leaving.RELEASED)


def renamed(state: BrainState, node: Node, former: str) -> None:
    """The host of released devices has another name now; they stay released."""
    for released in state.released.on_node(former):
        _move(state, released, node.node_id)


def card_came(state: BrainState, node: Node, device_id: str) -> None:
    """A card that is new to this node, and that was released as one of another: it stays released."""
    for released in state.released.of_device(device_id):
        holder = state.fleet.nodes.get(released.node_id)
        if released.node_id != node.node_id and (holder is None or device_id not in holder.devices):
            _move(state, released, node.node_id)


def let_go_of_forgotten(state: BrainState) -> None:
    """What was released of a host that was forgotten stays so, for when it or its card comes back; so many of them."""
    gone = [released for released in state.released.all() if released.node_id not in state.fleet.nodes]
    for released in gone[:-RELEASES_OF_FORGOTTEN_KEPT]:
        _take_out(state, (released.node_id, released.device_id))
        state.emit(PersistRecord(released, None))


def restore(state: BrainState, record: ReleasedDevice) -> None:
    _put(state, record, None if record.until_ms is None else state.time_of(record.until_ms))


def notice_pressure(state: BrainState, key: DeviceKey) -> None:
    """After a report: if workers hold more memory than another program leaves, look again when that has lasted."""
    if key not in state.pressed and shortage(state, key) > 0:
        state.pressed.add(key)
        state.timers.at(state.now + PRESSURE_LASTS_S, TimerKind.PRESSURE, _subject(key))


def relieve(state: BrainState, subject: str) -> None:
    """Workers leave until the rest has room: idle ones at once, least needed first; then busy ones, when done."""
    key = _key(subject)
    state.pressed.discard(key)
    lacking = shortage(state, key)
    if lacking <= 0:
        return
    staying = sorted(_staying(state, key), key=lambda worker: _how_hard(state, worker))
    for worker in staying:
        lacking -= state.ledger.held_by(worker.worker_id, key)
        _send_away(state, worker, Leaving.PRESSURE, f"another program took memory of {_name(state, key)}")
        if lacking <= 0:
            return


def shortage(state: BrainState, key: DeviceKey) -> int:
    """MiB that the workers that stay hold beyond what the device has for them."""
    held = sum(state.ledger.held_by(worker.worker_id, key) for worker in _staying(state, key))
    return held - state.ledger.capacity(key)


def _staying(state: BrainState, key: DeviceKey) -> list[Worker]:
    return [worker for worker in state.fleet.workers_on_device(*key) if worker.serves]


def _how_hard(state: BrainState, worker: Worker) -> tuple[bool, bool, bool, float, str]:
    """The order of leaving: busy after idle, then kept, then loading, and then by the expected cost of its absence."""
    return (
        bool(worker.attempts),
        replicas.is_kept(state, worker),
        worker.state is WorkerState.STARTING,
        eviction.regret_ms(state, worker),
        worker.worker_id,
    )


def _move(state: BrainState, released: ReleasedDevice, node_id: str) -> None:
    key = (released.node_id, released.device_id)
    due = state.released.due_at(key)
    _take_out(state, key)
    moved = replace(released, node_id=node_id)
    _put(state, moved, due)
    state.emit(PersistRecord(None, moved), PersistRecord(released, None))


def _release(
    state: BrainState, before: Sequence[ReleasedDevice | None], releases: Sequence[ReleasedDevice], due: float | None
) -> None:
    for known, released in zip(before, releases, strict=True):
        node_id, device_id = released.node_id, released.device_id
        if state.released.find((node_id, device_id)) != known:
            state.emit(PersistRecord(None, released))  # an earlier release has ended since, and its end was stored last
        _put(state, released, due)
        node = state.fleet.nodes.get(node_id)
        name = node.devices[device_id].name if node is not None and device_id in node.devices else device_id
        for worker in state.fleet.workers_on_device(node_id, device_id):
            _send_away(state, worker, Leaving.RELEASED, f"{name} of {node_id} goes back to its owner")
        _give_up_loads_on(state, node_id, device_id)
    state.look_again = True


def _resume(state: BrainState, keys: Sequence[DeviceKey]) -> None:
    for key in keys:
        if _take_out(state, key):
            state.look_again = True


def _send_away(state: BrainState, worker: Worker, why: Leaving, because: str) -> None:
    task_life.tell_running(state, worker, f"{because}: this worker takes nothing new, and this task finishes here")
    model_unloading.leave(state, worker, why)


def _give_up_loads_on(state: BrainState, node_id: str, device_id: str) -> None:
    for load in state.loads.on_node(node_id):
        if load.plan is not None and device_id in load.plan.device_ids and load.load_id not in state.fleet.workers:
            model_loading.begin_anew(state, load)


def _put(state: BrainState, released: ReleasedDevice, due: float | None) -> None:
    key = (released.node_id, released.device_id)
    state.released.put(released, due)
    if due is not None:
        state.timers.at(due, TimerKind.RESUME_DEVICE, _subject(key))


def _take_out(state: BrainState, key: DeviceKey) -> ReleasedDevice | None:
    state.timers.cancel(_subject(key), TimerKind.RESUME_DEVICE)
    return state.released.discard(key)


def _name(state: BrainState, key: DeviceKey) -> str:
    node_id, device_id = key
    device = state.fleet.nodes[node_id].devices.get(device_id)
    return f"{device.name if device else device_id} of {node_id}"


def _subject(key: DeviceKey) -> str:
    return "/".join(key)


def _key(subject: str) -> DeviceKey:
    node_id, _, device_id = subject.partition("/")
    return node_id, device_id
