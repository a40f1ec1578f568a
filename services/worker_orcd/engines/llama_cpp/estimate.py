"""What a model would take, asked of llama.cpp without loading it."""

from llorch.device_kind import DeviceKind
from llorch.gguf.model_file import read_model
from worker_orcd.engines.entry import MemoryUse
from worker_orcd.engines.llama_cpp.context import context_params
from worker_orcd.engines.llama_cpp.gpus import require_gpus
from worker_orcd.engines.llama_cpp.memory_breakdown import memory_breakdown
from worker_orcd.engines.llama_cpp.model import load_failure, open_model
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape


def ask_engine(shape: LlamaCppShape) -> list[MemoryUse]:
    """Only ever in a process that may crash. What it opens goes with the process."""
    read_model(shape.model_path)
    native = load_native()
    if shape.devices.kind is DeviceKind.CUDA:
        require_gpus(native, shape.devices)
    model = open_model(native, shape, go_on=lambda: True, with_weights=False)
    context = native.lib.llama_init_from_model(model, context_params(native.lib, shape))
    if not context:
        raise load_failure(native, shape)
    return memory_breakdown(native.lib, context)
