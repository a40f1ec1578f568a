"""Cards that are older than the engine's code for GPUs."""

from functools import cache

from llorch.device_kind import DeviceKind
from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site

OLDEST = (5, 0)
"""Maxwell: the oldest that a CUDA 12 compiler makes code for, and llama.cpp with it."""


def removes(_: Query, site: Site) -> bool:
    """A card that does not tell is given the benefit of the doubt: the load says so if it was too old."""
    told = site.devices[0].compute_capability
    return told != "" and _is_too_old(site.devices[0].kind, told)


def detail(_: Query, site: Site) -> str:
    needed = ".".join(map(str, OLDEST))
    return f"{site.name} has compute capability {site.devices[0].compute_capability}; the engine needs {needed} or more"


@cache
def _is_too_old(kind: DeviceKind, capability: str) -> bool:
    major, _, minor = capability.partition(".")
    return kind is DeviceKind.CUDA and major.isdigit() and minor.isdigit() and (int(major), int(minor)) < OLDEST


COMPUTE_CAPABILITY = Filter("compute_capability", removes, detail)
