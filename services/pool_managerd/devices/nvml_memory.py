"""The memory of a GPU, as NVML tells it."""

from dataclasses import dataclass
from typing import Any

import psutil

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """In MiB. `used_mib` includes what the driver keeps for itself, which no program can allocate."""

    total_mib: int
    used_mib: int


def read_memory(nvml: Any, handle: Any) -> GpuMemory:
    """Raises NVMLError where the GPU does not answer.

    GPUs that share the memory of their host (GB10, Jetson) have no figure of their own, so that of the host is told.
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        nvml.nvmlDeviceGetUUID(handle)  # whether it is there at all
        host = psutil.virtual_memory()
        return GpuMemory(host.total // _MIB, (host.total - host.available) // _MIB)
    return GpuMemory(memory.total // _MIB, memory.used // _MIB)
