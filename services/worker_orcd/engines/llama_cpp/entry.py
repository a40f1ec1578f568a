"""The llama.cpp engine, for the registry. Native code is imported when it is built or asked, and not before."""

from collections.abc import Sequence
from pathlib import Path

from worker_orcd.engines.entry import EngineEntry, MemoryUse
from worker_orcd.engines.llama_cpp.capabilities import CAPABILITIES
from worker_orcd.engines.llama_cpp.shape import shape_of
from worker_orcd.engines.llama_cpp.threads import usable_cores
from worker_orcd.engines.protocol import Engine
from worker_orcd.settings import WorkerSettings
from worker_orcd.token_reader import TokenReader


def _build(settings: WorkerSettings) -> Engine:
    shape = shape_of(settings, usable_cores())
    from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine

    return LlamaCppEngine(shape)


def _estimate(settings: WorkerSettings) -> Sequence[MemoryUse]:
    from worker_orcd.engines.llama_cpp.estimate import ask_engine

    return ask_engine(shape_of(settings, usable_cores()))


def _open_vocabulary(model_path: Path) -> TokenReader:
    from worker_orcd.engines.llama_cpp.vocabulary import open_vocabulary

    return open_vocabulary(model_path)


ENTRY = EngineEntry(_build, CAPABILITIES, _open_vocabulary, _estimate)
