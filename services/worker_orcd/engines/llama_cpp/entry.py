"""The llama.cpp engine, for the registry. Native code is imported when it is built or asked, and not before."""

from collections.abc import Sequence

from llorch.device_kind import DeviceKind
from llorch.errors import invalid_field
from worker_orcd.device import parse_device, parse_shares
from worker_orcd.engines.entry import EngineEntry, MemoryUse
from worker_orcd.engines.llama_cpp.capabilities import CAPABILITIES
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import Engine
from worker_orcd.settings import WorkerSettings


def _build(settings: WorkerSettings) -> Engine:
    shape = _shape(settings)
    from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine

    return LlamaCppEngine(shape)


def _estimate(settings: WorkerSettings) -> Sequence[MemoryUse]:
    from worker_orcd.engines.llama_cpp.estimate import ask_engine

    return ask_engine(_shape(settings))


ENTRY = EngineEntry(_build, CAPABILITIES, _estimate)


def _shape(settings: WorkerSettings) -> LlamaCppShape:
    """What the engine is told to load."""
    devices = parse_device(settings.device, allow_cpu=settings.allow_cpu)
    if settings.model_path is None:
        raise invalid_field("model_path", "the llama_cpp engine needs the model's file")
    if devices.kind is DeviceKind.SIMULATED and not settings.allow_cpu:
        parse_device("cpu", allow_cpu=False)
    from worker_orcd.engines.llama_cpp.threads import usable_cores

    return LlamaCppShape(
        model_path=settings.model_path,
        model=settings.model_name,
        devices=devices,
        slots=settings.slots,
        context_per_slot=settings.context_per_slot,
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        threads=settings.threads or usable_cores(),
        split=settings.split,
        tensor_split=parse_shares(settings.tensor_split, len(devices.ids)),
        decode_gap_s=settings.max_decode_gap_ms / 1000,
        host_cache_bytes=settings.host_cache_mib * 1024 * 1024,
        deterministic_runs=settings.deterministic_runs,
        digest_folder=settings.digest_folder,
    )
