"""Cards that are older than the engine's code for GPUs."""

from orchestratord.core.fleet import Device, DeviceKind
from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site

OLDEST = (5, 0)
"""Maxwell: the oldest that a CUDA 12 compiler makes code for, and llama.cpp with it."""


def removes(_: Query, site: Site) -> bool:
    return any(_is_too_old(device) for device in site.devices)


def detail(_: Query, site: Site) -> str:
    old = next(device for device in site.devices if _is_too_old(device))
    return (
        f"{old.name} has compute capability {old.compute_capability}; the engine needs {'.'.join(map(str, OLDEST))} or more"
    )


def _is_too_old(device: Device) -> bool:
    """A card that does not tell is given the benefit of the doubt: the load says so if it was too old."""
    major, _, minor = device.compute_capability.partition(".")
    is_told = device.kind is DeviceKind.CUDA and major.isdigit() and minor.isdigit()
    return is_told and (int(major), int(minor)) < OLDEST


COMPUTE_CAPABILITY = Filter("compute_capability", removes, detail)
