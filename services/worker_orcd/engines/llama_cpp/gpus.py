"""The GPUs that the engine's build can compute on, and the refusal to compute anywhere else."""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llorch.errors import FailedPrecondition, Reason
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.native import INSTALL, Native

_GPU = 1
"""GGML_BACKEND_DEVICE_TYPE_GPU."""


@dataclass(frozen=True, slots=True)
class Gpu:
    description: str
    free_bytes: int


def require_gpus(native: Native, devices: DeviceSet, environment: Mapping[str, str] = os.environ) -> None:
    """Refuses unless exactly these GPUs are what the engine will use: never silently the CPU, never another
    card.
    """
    wanted = ",".join(devices.ids)
    if not native.lib.llama_supports_gpu_offload():
        raise FailedPrecondition(
            Reason.GPU_BUILD_MISSING,
            f"the model has to run on GPU {wanted}, but llama-cpp-python was built without GPU support; {INSTALL}",
        )
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if visible != wanted:
        raise FailedPrecondition(
            Reason.GPU_BUILD_MISSING,
            f"the model has to run on GPU {wanted}; start the worker with CUDA_VISIBLE_DEVICES={wanted} "
            f"(it is {visible or 'not set'})",
        )
    found = len(list_gpus())
    if found != len(devices.ids):
        raise FailedPrecondition(
            Reason.GPU_BUILD_MISSING,
            f"the model has to run on GPU {wanted}, but the engine sees {found} GPUs of these; "
            "nvidia-smi -L shows which there are",
        )


def list_gpus() -> list[Gpu]:
    """GPUs in the engine's order, with what is free on them now."""
    from llama_cpp import _ggml

    ggml: Any = _ggml.libggml
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
    ggml.ggml_backend_dev_memory.restype = None
    found = (ggml.ggml_backend_dev_get(number) for number in range(ggml.ggml_backend_dev_count()))
    return [_describe(ggml, device) for device in found if ggml.ggml_backend_dev_type(device) == _GPU]


def _describe(ggml: Any, device: int) -> Gpu:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return Gpu(ggml.ggml_backend_dev_description(device).decode(errors="replace"), free.value)
