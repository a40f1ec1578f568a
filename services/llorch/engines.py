"""The engines that llama-orch knows. Pure: what is said here is known without importing any of them.

A new engine is an entry here, one in `worker_orcd.engines.registry`, and its folder. The first that computes on a kind
of device is the one that runs where a model names none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from llorch.device_kind import DeviceKind

_FILES = ("file:", "dir:", "pkg:", "hf:", "https:")


class EngineName(StrEnum):
    """The help of command lines shows members by their Python names, so that these are the engines' own."""

    llama_cpp = "llama_cpp"
    sim = "sim"


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """`devices` are those that it computes on itself; behind others it computes on the CPU of their node.

    `sources` are the beginnings of the references that it takes.
    """

    devices: frozenset[DeviceKind]
    sources: tuple[str, ...]


ENGINES: Mapping[EngineName, EngineTraits] = MappingProxyType(
    {
        EngineName.llama_cpp: EngineTraits(frozenset({DeviceKind.CUDA, DeviceKind.CPU}), _FILES),
        EngineName.sim: EngineTraits(frozenset({DeviceKind.SIMULATED}), _FILES),
    }
)

SOURCES = tuple(dict.fromkeys(source for traits in ENGINES.values() for source in traits.sources))
"""The beginnings of the references that some engine takes."""


BY_DEVICE: Mapping[DeviceKind, tuple[EngineName, ...]] = MappingProxyType(
    {kind: tuple(name for name, traits in ENGINES.items() if kind in traits.devices) for kind in DeviceKind}
)
"""Those that compute on a device of a kind."""


def computes_on(engine: EngineName, kind: DeviceKind) -> DeviceKind:
    """The kind of device that it computes on where it was placed on one of `kind`."""
    return kind if kind in ENGINES[engine].devices else DeviceKind.CPU
