"""The processes that hold memory of a GPU, from NVML."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pool_managerd.devices.device import DeviceProcess, OwnUse

_MIB = 2**20
_LONGEST_NAME = 64
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of the kernel


def sees_host_processes(namespace: Path = Path("/proc/self/ns/pid")) -> bool:
    """Whether process ids here are those that the driver tells. In a container they are others."""
    try:
        return str(namespace.readlink()) == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def holders(nvml: Any, handle: Any, own: OwnUse) -> tuple[DeviceProcess, ...] | None:
    """Programs with memory of this GPU, our own first, then the largest first. None where the driver does not tell.

    A program that computes and draws is listed by NVML once for each; the larger figure is the whole.
    """
    held: dict[int, int | None] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        try:
            running = ask(handle)
        except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
            return None
        for entry in running:
            held[entry.pid] = _larger(held.get(entry.pid), entry.usedGpuMemory)
    processes = [DeviceProcess(pid, _name(pid), _mib(used), own.pids.get(pid, "")) for pid, used in held.items()]
    processes.sort(key=lambda process: (not process.worker_id, -(process.memory_mib or 0), process.pid))
    return tuple(processes)


def memory_of_own(processes: Sequence[DeviceProcess] | None, known_mib: int, *, host_pids: bool) -> int:
    """MiB that our workers hold: as the driver says, but no more than `known_mib`, what they say themselves.

    The orchestrator plans with the figures that it knows. What a worker holds beyond them, such as a driver's context,
    has to count as used by others, or the orchestrator would place another model there.

    The driver's figures count where it lists our processes, and where it lists others and would list ours if they held
    memory. In a container it lists no processes, or ids of another namespace; on some cards it tells no figures.
    """
    if not processes:
        return known_mib
    ours = [process.memory_mib for process in processes if process.worker_id]
    if None in ours or not (ours or host_pids):
        return known_mib
    return min(known_mib, sum(figure for figure in ours if figure is not None))


def holds_memory(nvml: Any, handle: Any, pid: int) -> bool:
    """A device that does not answer can't be waited for; sampling reports it as lost."""
    ask: Callable[[Any], Any] = nvml.nvmlDeviceGetComputeRunningProcesses
    try:
        return any(entry.pid == pid for entry in ask(handle))
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return False


def _larger(first: int | None, second: int | None) -> int | None:
    return max((figure for figure in (first, second) if figure is not None), default=None)


def _mib(used: int | None) -> int | None:
    return None if used is None else used // _MIB


def _name(pid: int) -> str:
    """Empty for a process that this namespace does not show."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()[:_LONGEST_NAME]
    except OSError:
        return ""
