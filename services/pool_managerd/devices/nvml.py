"""NVIDIA GPUs through NVML (`nvidia-ml-py`, imported when this inventory is opened and not before)."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llorch.device_kind import DeviceKind
from llorch.logs import get_logger
from pool_managerd.devices.device import Device, DeviceState, OwnUse
from pool_managerd.devices.inventory import InventoryUnavailable
from pool_managerd.devices.nvml_memory import read_memory
from pool_managerd.devices.nvml_processes import holders, holds_memory, memory_of_own, sees_host_processes
from pool_managerd.devices.nvml_remedies import INSTALL_BINDING, LOOK_AT_THE_CARD, remedy
from pool_managerd.devices.nvml_sensors import read_sensors

_SENSORS_EVERY = 4  # samples; memory changes faster than temperature, and is far cheaper to ask for
_REVIVE_EVERY = 6  # samples

_log = get_logger(__name__)


@dataclass(slots=True)
class _Gpu:
    """A GPU that was found, and its last sample."""

    handle: Any
    last: Device


class NvmlInventory:
    """Every call goes to the driver and may block; nothing here is safe to call from two threads at once.

    A failure while sampling makes that device LOST and leaves the others as they are. A LOST device is looked for
    again with every sample, and with all of them LOST the driver's library is opened anew now and then: a driver
    that was reloaded has forgotten the handles that it gave out before.
    """

    def __init__(self, binding: Any = None, *, host_pids: bool | None = None) -> None:
        """`binding` stands in for the module `pynvml`, `host_pids` for what is found out about process ids."""
        self._nvml = binding
        self._host_pids = sees_host_processes() if host_pids is None else host_pids
        self._gpus: list[_Gpu] = []
        self._driver_version = ""
        self._initialised = False
        self._samples = 0

    def open(self) -> None:
        if self._nvml is None:
            self._nvml = _import_binding()
        try:
            self._nvml.nvmlInit()
            self._initialised = True
            self._driver_version = _text(self._nvml.nvmlSystemGetDriverVersion())
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            self.close()
            raise InventoryUnavailable(
                f"the NVIDIA driver's library (NVML) answered: {error}", remedy(getattr(error, "value", None))
            ) from error
        problems = self._find_all(count)
        if not self._gpus:
            self.close()
            shown = f"{count} that can't be used ({'; '.join(problems)})" if count else "no GPU"
            raise InventoryUnavailable(
                f"NVIDIA driver {self._driver_version} works, but shows {shown}", LOOK_AT_THE_CARD
            )

    def sample(self, own: OwnUse) -> Sequence[Device]:
        if all(gpu.last.state is DeviceState.LOST for gpu in self._gpus) and self._samples % _REVIVE_EVERY == 0:
            self._open_library_anew()
        with_sensors = self._samples % _SENSORS_EVERY == 0
        self._samples += 1
        for gpu in self._gpus:
            gpu.last = self._sample_one(gpu, own, with_sensors=with_sensors)
        return tuple(gpu.last for gpu in self._gpus)

    def holds_memory(self, pid: int) -> bool:
        return any(holds_memory(self._nvml, gpu.handle, pid) for gpu in self._gpus)

    def close(self) -> None:
        if not self._initialised:
            return
        self._initialised = False
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            _log.warning("nvml_shutdown_failed", error=str(error))

    def _find_all(self, count: int) -> list[str]:
        """What is wrong with the GPUs that had to be left out: one broken card must not cost the others."""
        problems = []
        for index in range(count):
            try:
                self._gpus.append(self._find(index))
            except self._nvml.NVMLError as error:
                problems.append(f"GPU {index}: {error}")
                _log.error("gpu_left_out", index=index, error=str(error))
        return problems

    def _find(self, index: int) -> _Gpu:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        total = read_memory(self._nvml, handle).total_mib
        device = Device(
            device_id=_text(self._nvml.nvmlDeviceGetUUID(handle)),
            kind=DeviceKind.CUDA,
            index=index,
            name=_short_name(_text(self._nvml.nvmlDeviceGetName(handle))),
            memory_total_mib=total,
            memory_used_mib=0,
            used_by_others_mib=0,
            compute_capability=self._compute_capability(handle),
            driver_version=self._driver_version,
        )
        return _Gpu(handle, device)

    def _compute_capability(self, handle: Any) -> str:
        major, minor = self._nvml.nvmlDeviceGetCudaComputeCapability(handle)
        return f"{major}.{minor}"

    def _sample_one(self, gpu: _Gpu, own: OwnUse, *, with_sensors: bool) -> Device:
        try:
            if gpu.last.state is DeviceState.LOST:
                gpu.handle = self._nvml.nvmlDeviceGetHandleByUUID(gpu.last.device_id)
            memory = read_memory(self._nvml, gpu.handle)
        except self._nvml.NVMLError as error:
            if gpu.last.state is not DeviceState.LOST:
                _log.error("device_lost", device=gpu.last.device_id, name=gpu.last.name, error=str(error))
            return replace(gpu.last, state=DeviceState.LOST)
        if gpu.last.state is DeviceState.LOST:
            _log.info("device_is_back", device=gpu.last.device_id, name=gpu.last.name)
        processes = holders(self._nvml, gpu.handle, own)
        known_mib = own.memory_mib.get(gpu.last.device_id, 0)
        ours = memory_of_own(processes, known_mib, host_pids=self._host_pids)
        return replace(
            gpu.last,
            state=DeviceState.OK,
            memory_used_mib=memory.used_mib,
            used_by_others_mib=max(0, memory.used_mib - ours),
            processes=processes or (),
            **(read_sensors(self._nvml, gpu.handle) if with_sensors else {}),
        )

    def _open_library_anew(self) -> None:
        calls: tuple[Callable[[], None], ...] = (self._nvml.nvmlShutdown, self._nvml.nvmlInit)
        for call in calls:
            try:
                call()
            except self._nvml.NVMLError as error:
                _log.debug("nvml_is_still_lost", error=str(error))


def _import_binding() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ModuleNotFoundError as error:
        raise InventoryUnavailable('the Python package "nvidia-ml-py" is not installed', INSTALL_BINDING) from error


def _short_name(name: str) -> str:
    """As people say it: "RTX 3090", not "NVIDIA GeForce RTX 3090"."""
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def _text(value: str | bytes) -> str:
    """Older bindings answer bytes."""
    return value.decode() if isinstance(value, bytes) else value
