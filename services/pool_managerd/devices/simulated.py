"""Devices that exist in the settings only: for tests, demonstrations and planning. Marked as such everywhere."""

from collections.abc import Sequence

from llorch.device_kind import DeviceKind
from llorch.simulated_gpu import SimulatedGpu
from pool_managerd.devices.device import Device, OwnUse


class SimulatedInventory:
    """Its memory is used by exactly what this node's workers report; no other program uses it."""

    def __init__(self, gpus: Sequence[SimulatedGpu]) -> None:
        self._gpus = tuple(gpus)

    def open(self) -> None:
        """Nothing to open."""

    def sample(self, own: OwnUse) -> Sequence[Device]:
        return tuple(self._device(index, gpu, own) for index, gpu in enumerate(self._gpus))

    def holds_memory(self, pid: int) -> bool:
        """Memory that a table remembers is back when the worker has ended."""
        return False

    def close(self) -> None:
        """Nothing to close."""

    def _device(self, index: int, gpu: SimulatedGpu, own: OwnUse) -> Device:
        device_id = f"sim-{index}"
        used = min(own.memory_mib.get(device_id, 0), gpu.memory_mib)
        return Device(
            device_id=device_id,
            kind=DeviceKind.SIMULATED,
            index=index,
            name=gpu.name,
            memory_total_mib=gpu.memory_mib,
            memory_used_mib=used,
            used_by_others_mib=0,
            marks=("simulated",),
        )
