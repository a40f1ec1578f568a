"""One device as the node reports it. Pure: no driver, no files, no time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llorch.device_kind import DeviceKind
from llorch.engines import EngineName


class DeviceState(StrEnum):
    OK = "ok"
    LOST = "lost"  # it was there and does not answer any more: fell off the bus, or its driver failed


class ThrottleReason(StrEnum):
    HEAT = "heat"
    POWER = "power"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True)
class DeviceProcess:
    """A program that holds memory of a device; `worker_id` is empty for programs that are not workers of this node."""

    pid: int
    name: str = ""
    memory_mib: int | None = None
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A sample of one device.

    `memory_used_mib` counts all programs; `used_by_others_mib` is the part of it that none of this node's workers
    is known to hold. `reserve_mib` is what the owner of the machine keeps for other programs; the orchestrator
    subtracts it, the other figures leave it in. What a driver can't tell is None.

    `device_id` is the GPU's UUID, "sim-<n>" or "cpu", stable over restarts; `index` is that of nvidia-smi, 0 for the
    CPU. `compute_capability` is e.g. "8.6", empty where a device has none. `ecc_errors` are the uncorrected ones since
    the driver was loaded. `processes` has the largest first, and is empty where the driver does not tell. `engines`
    follow from the settings; the first runs where a model names none. `marks` are words such as "simulated" or "cpu",
    shown to people wherever the device is named.
    """

    device_id: str
    kind: DeviceKind
    index: int
    name: str
    memory_total_mib: int
    memory_used_mib: int
    used_by_others_mib: int
    reserve_mib: int = 0
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: int | None = None
    compute_capability: str = ""
    driver_version: str = ""
    ecc_errors: int | None = None
    throttle_reasons: tuple[ThrottleReason, ...] = ()
    processes: tuple[DeviceProcess, ...] = ()
    state: DeviceState = DeviceState.OK
    engines: tuple[EngineName, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnUse:
    """What this node's workers hold: lets an inventory tell their memory from that of other programs.

    `pids` tells the worker of each process. `memory_mib` is per device id, as the workers measured it or, before they
    did, as the orchestrator reserved it.
    """

    pids: Mapping[int, str] = field(default_factory=dict)
    memory_mib: Mapping[str, int] = field(default_factory=dict)
