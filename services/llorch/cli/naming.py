"""The words for states and places in tables."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from llama_orch.v2 import fleet_service_pb2, node_pb2, worker_pb2


def enum_word(enum: Any, value: int, prefix: str) -> str:
    """`WORKER_STATE_READY` is "ready"; a value of a newer release is its number."""
    return str(enum.Name(value)).removeprefix(prefix).lower() if value in enum.values() else str(value)


def node_mark(node: "node_pb2.Node") -> str:
    """What is the matter with a machine, for a note beside what it has; empty if nothing is."""
    from llama_orch.v2 import node_pb2

    silent_s = f"{node.last_report_age_ms / 1000:.0f} s"
    words = {
        node_pb2.NODE_STATE_READY: "",
        node_pb2.NODE_STATE_DRAINING: "",  # as are the pools of its devices
        node_pb2.NODE_STATE_DRAINED: "",
        node_pb2.NODE_STATE_SUSPECT: f"machine has not reported for {silent_s}",
        node_pb2.NODE_STATE_LOST: f"machine lost: it has not reported for {silent_s}",
        node_pb2.NODE_STATE_AWAITED: f"machine expected back: the orchestrator started {silent_s} ago",
    }
    return words.get(node.state, f"machine {enum_word(node_pb2.NodeState, node.state, 'NODE_STATE_')}")


def pool_mark(node: "node_pb2.Node", device_ids: Iterable[str]) -> str:
    """That devices of a machine take nothing new, because their pools were emptied or are about to be."""
    from llama_orch.v2 import pool_pb2

    states = {pool.state for pool in node.pools if not set(pool.device_ids).isdisjoint(device_ids)}
    if pool_pb2.POOL_STATE_DRAINING in states:
        return "pool being drained"
    return "pool drained" if pool_pb2.POOL_STATE_DRAINED in states else ""


def device_marks(ledger: "fleet_service_pb2.DeviceLedger") -> list[str]:
    """What must not be overlooked about a device."""
    from llama_orch.v2 import device_pb2

    device = ledger.device
    marks = {device_pb2.DEVICE_KIND_CPU: ["cpu"], device_pb2.DEVICE_KIND_SIMULATED: ["simulated"]}.get(device.kind, [])
    if device.state not in (device_pb2.DEVICE_STATE_OK, device_pb2.DEVICE_STATE_UNSPECIFIED):
        until = f" until {clock_time(ledger.release_end_time)}" if ledger.HasField("release_end_time") else ""
        marks.append(enum_word(device_pb2.DeviceState, device.state, "DEVICE_STATE_") + until)
    if device.throttled:
        reasons = [enum_word(device_pb2.ThrottleReason, it, "THROTTLE_REASON_") for it in device.throttle_reasons]
        marks.append(f"slowed down by {' and '.join(reasons)}" if reasons else "slowed down")
    return marks


def clock_time(time: "Timestamp") -> str:
    """The time of day here, with the day if it is another one."""
    when = time.ToDatetime(UTC).astimezone()
    return when.strftime("%H:%M" if when.date() == datetime.now(UTC).astimezone().date() else "%Y-%m-%d %H:%M")


def worker_place(worker: "worker_pb2.Worker", devices: "Iterable[fleet_service_pb2.DeviceLedger]") -> str:
    """The node and its devices, e.g. `garage/RTX 3090+RTX 3060`."""
    names = {(ledger.node_id, ledger.device.device_id): ledger.device.name for ledger in devices}
    found = [names.get((worker.node_id, device_id), device_id) for device_id in worker.spec.device_ids]
    return f"{worker.node_id}/{'+'.join(found)}"


def worker_marks(worker: "worker_pb2.Worker") -> list[str]:
    """What computes the answers, where it is not a GPU."""
    return [name for name in ("cpu", "simulated") if getattr(worker.engine, name)]
