"""From the name of an engine to the engine. Only the one that was chosen is imported."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from llorch.engines import EngineName
from worker_orcd.engines.entry import EngineEntry


def _llama_cpp() -> EngineEntry:
    from worker_orcd.engines.llama_cpp.entry import ENTRY

    return ENTRY


def _sim() -> EngineEntry:
    from worker_orcd.engines.sim.entry import ENTRY

    return ENTRY


REGISTRY: Mapping[EngineName, Callable[[], EngineEntry]] = MappingProxyType(
    {EngineName.llama_cpp: _llama_cpp, EngineName.sim: _sim}
)
