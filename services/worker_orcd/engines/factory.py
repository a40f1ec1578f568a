"""From settings to an engine. Only the engine that was chosen is imported."""

from llorch.device_kind import DeviceKind
from llorch.errors import invalid_field
from worker_orcd.device import parse_device, parse_shares
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import Engine
from worker_orcd.settings import WorkerSettings


def build_engine(settings: WorkerSettings) -> Engine:
    """An engine that has not loaded yet. Raises `LlorchError` where it can be known already that it never
    will.
    """
    if settings.engine == "sim":
        return _build_sim(settings)
    return _build_llama_cpp(settings)


def _build_sim(settings: WorkerSettings) -> Engine:
    from worker_orcd.engines.sim.engine import SimEngine, SimShape
    from worker_orcd.engines.sim.parameters import parse_parameters

    devices = parse_device(settings.device or "sim:0", allow_cpu=settings.allow_cpu)
    return SimEngine(
        parse_parameters(settings.sim),
        SimShape(
            model=settings.model_name,
            slots=settings.slots,
            context_per_slot=settings.context_per_slot,
            devices=len(devices.ids),
        ),
    )


def llama_cpp_shape(settings: WorkerSettings) -> LlamaCppShape:
    """What the llama.cpp engine is told to load."""
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


def _build_llama_cpp(settings: WorkerSettings) -> Engine:
    shape = llama_cpp_shape(settings)
    from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine

    return LlamaCppEngine(shape)
