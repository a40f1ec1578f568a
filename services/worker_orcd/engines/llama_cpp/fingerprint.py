"""Everything that the bytes of an answer depend on apart from the request."""

import platform
from collections.abc import Sequence
from pathlib import Path

from llorch.device_kind import DeviceKind
from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.llama_cpp import draws
from worker_orcd.engines.llama_cpp.amx import may_repack
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def fingerprint(
    native: Native, shape: LlamaCppShape, gpus: Sequence[str], model_digest: str, *, deterministic: bool
) -> Fingerprint:
    """`gpus` are the models of the GPUs, in the engine's order."""
    on_cuda = shape.devices.kind is DeviceKind.CUDA
    return Fingerprint(
        engine_version=f"llama_cpp {native.version}",
        build=" | ".join((native.system_info(), " ".join(platform.libc_ver()), *_repacking(native, shape))),
        device_kind="cuda" if on_cuda else "cpu",
        device=", ".join(_cuda(shape, gpus)) if on_cuda else "",
        model_digest=model_digest,
        sampler_profile=draws.PROFILE,
        prefill_chunk=shape.fixed_chunk if deterministic else 0,
        threads=shape.threads,
        flash_attention=shape.flash_attention,
        cache_type_k=shape.cache_type_k,
        cache_type_v=shape.cache_type_v,
        context_per_slot=shape.context_per_slot,
    )


def _repacking(native: Native, shape: LlamaCppShape) -> list[str]:
    """Weights in the order of a machine's instructions are multiplied by other code, which rounds otherwise."""
    return ["repacked"] if may_repack(native) and shape.devices.kind is not DeviceKind.CUDA else []


def _cuda(shape: LlamaCppShape, gpus: Sequence[str]) -> list[str]:
    shares = ":".join(f"{share:g}" for share in shape.tensor_split)
    spread = [f"split {shape.split} {shares}".rstrip()] if len(gpus) > 1 else []
    return [*gpus, *spread, nvidia_driver()]


def nvidia_driver(path: Path = _NVIDIA_DRIVER) -> str:
    """The version of the driver, in the kernel module's own words; it compiles what a build brings as PTX."""
    try:
        first_line = path.read_text().partition("\n")[0]
    except OSError:
        return "driver unknown"
    return " ".join(first_line.removeprefix("NVRM version:").split())
