"""NVIDIA GPUs through NVML (`nvidia-ml-py`, imported when this inventory is opened and not before)."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llorch.logs import get_logger
from pool_managerd.devices.device import Device, DeviceKind, DeviceState, OwnUse
from pool_managerd.devices.inventory import InventoryUnavailable

_MIB = 2**20
log = get_logger(__name__)


@dataclass(slots=True)
class _Gpu:
    """A GPU that was found, and what it said last."""

    handle: Any
    last: Device


class NvmlInventory:
    """Every call goes to the driver and may block; nothing here is safe to call from two threads at once.

    A failure while sampling makes that device LOST and leaves the others as they are. A LOST device is asked
    again with every sample, so it comes back by itself if the driver does.
    """

    def __init__(self, reserve_mib: Mapping[str, int], binding: Any = None) -> None:
        """`binding` stands in for the module `pynvml`."""
        self._reserve_mib = reserve_mib
        self._nvml = binding
        self._gpus: list[_Gpu] = []
        self._driver_version = ""
        self._initialised = False

    def open(self) -> None:
        if self._nvml is None:
            self._nvml = _import_binding()
        try:
            self._nvml.nvmlInit()
            self._initialised = True
            self._driver_version = _text(self._nvml.nvmlSystemGetDriverVersion())
            count = self._nvml.nvmlDeviceGetCount()
            self._gpus = [self._find(index) for index in range(count)]
        except self._nvml.NVMLError as exc:
            self.close()
            raise InventoryUnavailable(f"the NVIDIA driver's library (NVML) answered: {exc}") from exc
        if not self._gpus:
            self.close()
            raise InventoryUnavailable(f"NVIDIA driver {self._driver_version} works, but shows no GPU")

    def sample(self, own: OwnUse) -> Sequence[Device]:
        for gpu in self._gpus:
            gpu.last = self._sample_one(gpu, own)
        return tuple(gpu.last for gpu in self._gpus)

    def holds_memory(self, pid: int) -> bool:
        return any(self._holds_memory(gpu, pid) for gpu in self._gpus)

    def close(self) -> None:
        if not self._initialised:
            return
        self._initialised = False
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as exc:
            log.warning("nvml_shutdown_failed", error=str(exc))

    def _find(self, index: int) -> _Gpu:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(self._nvml.nvmlDeviceGetUUID(handle))
        total = self._nvml.nvmlDeviceGetMemoryInfo(handle).total // _MIB
        device = Device(
            device_id=uuid,
            kind=DeviceKind.CUDA,
            index=index,
            name=_text(self._nvml.nvmlDeviceGetName(handle)),
            memory_total_mib=total,
            memory_used_mib=0,
            memory_free_mib=total,
            used_by_others_mib=0,
            reserve_mib=self._reserve_mib.get(uuid, 0),
            compute_capability=self._compute_capability(handle),
            driver_version=self._driver_version,
        )
        return _Gpu(handle, device)

    def _compute_capability(self, handle: Any) -> str:
        major, minor = self._nvml.nvmlDeviceGetCudaComputeCapability(handle)
        return f"{major}.{minor}"

    def _sample_one(self, gpu: _Gpu, own: OwnUse) -> Device:
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(gpu.handle)
            used = memory.used // _MIB
            ours = self._used_by_own(gpu, own)
        except self._nvml.NVMLError as exc:
            if gpu.last.state is not DeviceState.LOST:
                log.error("device_lost", device=gpu.last.device_id, name=gpu.last.name, error=str(exc))
            return replace(gpu.last, state=DeviceState.LOST)
        return replace(
            gpu.last,
            state=DeviceState.OK,
            memory_used_mib=used,
            memory_free_mib=memory.free // _MIB,
            used_by_others_mib=max(0, used - ours),
            utilisation_percent=self._optional(lambda: self._nvml.nvmlDeviceGetUtilizationRates(gpu.handle).gpu),
            temperature_c=self._optional(
                lambda: self._nvml.nvmlDeviceGetTemperature(gpu.handle, self._nvml.NVML_TEMPERATURE_GPU)
            ),
            power_w=self._optional(lambda: self._nvml.nvmlDeviceGetPowerUsage(gpu.handle) // 1000),
        )

    def _used_by_own(self, gpu: _Gpu, own: OwnUse) -> int:
        """MiB of this GPU that our workers hold.

        The driver says so per process, except in containers and on some consumer cards, where it knows no
        process or no figure; then the workers' own measurement counts.
        """
        stated = 0
        for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle):
            if process.pid in own.pids and process.usedGpuMemory is not None:
                stated += process.usedGpuMemory // _MIB
        return stated or own.memory_mib.get(gpu.last.device_id, 0)

    def _holds_memory(self, gpu: _Gpu, pid: int) -> bool:
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle)
        except self._nvml.NVMLError:
            return False  # a device that does not answer can't be waited for; sampling reports it as lost
        return any(process.pid == pid for process in processes)

    def _optional(self, read: Callable[[], int]) -> int | None:
        """A figure that a card need not have (a passively cooled one, a virtual one)."""
        try:
            return max(0, int(read()))
        except self._nvml.NVMLError:
            return None


def _import_binding() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ModuleNotFoundError as exc:
        raise InventoryUnavailable(
            'the Python package "nvidia-ml-py" is not installed (it comes with llama-orch[gpu])'
        ) from exc


def _text(value: str | bytes) -> str:
    """Older bindings answer bytes."""
    return value.decode() if isinstance(value, bytes) else value
