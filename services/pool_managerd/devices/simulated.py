"""Devices that exist in the settings only: for tests, demonstrations and planning. Marked as such everywhere."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llorch.device_kind import DeviceKind
from llorch.errors import invalid_field
from pool_managerd.devices.device import Device, OwnUse

_FORM = re.compile(r"^(?P<name>.+):\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>GiB|MiB|GB|MB|G|M)$")
_MIB_PER_UNIT = {"GiB": 1024.0, "G": 1024.0, "MiB": 1.0, "M": 1.0, "GB": 1e9 / 2**20, "MB": 1e6 / 2**20}


@dataclass(frozen=True, slots=True)
class SimulatedGpu:
    name: str
    memory_mib: int


def parse_simulated_gpu(text: str) -> SimulatedGpu:
    """Reads `NAME:SIZE`, e.g. `RTX 3090:24GiB`."""
    match = _FORM.match(text.strip())
    if match is None:
        raise invalid_field("simulate_gpu", f'"{text}" is not NAME:SIZE, for example "RTX 3090:24GiB"')
    memory_mib = int(float(match["amount"]) * _MIB_PER_UNIT[match["unit"]])
    if memory_mib < 1:
        raise invalid_field("simulate_gpu", f'"{text}" has no memory; give at least 1MiB')
    return SimulatedGpu(match["name"].strip(), memory_mib)


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
