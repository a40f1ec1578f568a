"""What an engine gives to the registry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker_orcd.engine_info import Capabilities
from worker_orcd.engines.protocol import Engine
from worker_orcd.settings import WorkerSettings
from worker_orcd.token_reader import TokenReader


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes in one kind of memory, which is called as the engine does: for llama.cpp CPU, CUDA0, CUDA_Host."""

    memory: str
    weights: int
    cache: int
    compute: int


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """`build` makes an engine that has not loaded yet; it raises `LlorchError` where it is known already that it never
    will.

    `capabilities` are the most that it declares; with some models it declares less. `open_vocabulary` reads from a file
    what its model makes tokens by, and `estimate` asks the engine what a model would take, both in a process that may
    crash. Without `estimate` it can't be asked.
    """

    build: Callable[[WorkerSettings], Engine]
    capabilities: Capabilities
    open_vocabulary: Callable[[Path], TokenReader]
    estimate: Callable[[WorkerSettings], Sequence[MemoryUse]] | None = None
