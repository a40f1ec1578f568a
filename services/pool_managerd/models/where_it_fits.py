"""Which devices could hold a file of a size, to help users choose a quantization. Pure."""

from collections.abc import Iterable

from pool_managerd.devices.device import Device

_MIB = 2**20
_BESIDE_WEIGHTS = 1.1
"""KV cache and compute buffers come on top; how much, only the context decides."""


def where_it_fits(size_bytes: int, devices: Iterable[Device]) -> str:
    """For example "fits RTX 3090"; "fits no device here" if none is large enough when empty."""
    needed_mib = size_bytes * _BESIDE_WEIGHTS / _MIB
    names = dict.fromkeys(
        device.name for device in devices if device.memory_total_mib - device.reserve_mib >= needed_mib
    )
    return f"fits {', '.join(names)}" if names else "fits no device here"
