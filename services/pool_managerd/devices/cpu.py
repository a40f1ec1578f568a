"""The host's processor and main memory as a device; listed only where the settings allow it."""

import platform
from collections.abc import Sequence
from pathlib import Path

import psutil

from llorch.device_kind import DeviceKind
from pool_managerd.devices.device import Device, OwnUse

_MIB = 2**20
DEVICE_ID = "cpu"


class CpuInventory:
    """Free memory is what the kernel calls available, within the limit of this process's control group."""

    def __init__(self, cgroup_root: Path = Path("/sys/fs/cgroup")) -> None:
        self._cgroup_root = cgroup_root
        self._name = ""

    def open(self) -> None:
        self._name = _processor_name()

    def sample(self, own: OwnUse) -> Sequence[Device]:
        memory = psutil.virtual_memory()
        total, available = memory.total // _MIB, memory.available // _MIB
        limit, in_use = self._cgroup_memory_mib()
        if limit is not None and limit < total:
            total, available = limit, max(0, min(available, limit - in_use))
        used = total - available
        device = Device(
            device_id=DEVICE_ID,
            kind=DeviceKind.CPU,
            index=0,
            name=self._name,
            memory_total_mib=total,
            memory_used_mib=used,
            used_by_others_mib=max(0, used - own.memory_mib.get(DEVICE_ID, 0)),
            marks=("cpu",),
        )
        return (device,)

    def holds_memory(self, pid: int) -> bool:
        """The kernel takes main memory back before it reports the end of a process."""
        return False

    def close(self) -> None:
        """Nothing to close."""

    def _cgroup_memory_mib(self) -> tuple[int | None, int]:
        """The container's memory limit (None: none) and its use without reclaimable file pages (cgroup v2)."""
        try:
            limit = (self._cgroup_root / "memory.max").read_text().strip()
            if limit == "max":
                return None, 0
            current = int((self._cgroup_root / "memory.current").read_text())
            statistics = dict(line.split() for line in (self._cgroup_root / "memory.stat").read_text().splitlines())
            return int(limit) // _MIB, max(0, current - int(statistics.get("inactive_file", 0))) // _MIB
        except (OSError, ValueError):
            return None, 0


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not every kernel shows it; the architecture is a name as well
    return f"{platform.machine()} processor"
