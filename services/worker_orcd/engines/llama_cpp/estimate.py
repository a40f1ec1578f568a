"""What a model would take, asked of llama.cpp without loading it."""

from dataclasses import replace
from typing import Any

from llorch.device_kind import DeviceKind
from llorch.gguf.model_file import read_model
from llorch.gguf.reading import output_bytes, reading_shape
from worker_orcd.engines.entry import MemoryUse
from worker_orcd.engines.llama_cpp.context import context_params
from worker_orcd.engines.llama_cpp.gpus import require_gpus
from worker_orcd.engines.llama_cpp.memory_breakdown import memory_breakdown
from worker_orcd.engines.llama_cpp.model import load_failure, open_model
from worker_orcd.engines.llama_cpp.native import Native, load_native
from worker_orcd.engines.llama_cpp.reading_context import reading_params
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape


def ask_engine(shape: LlamaCppShape) -> list[MemoryUse]:
    """Only ever in a process that may crash. What it opens goes with the process."""
    facts = read_model(shape.model_path)
    native = load_native()
    on_cuda = shape.devices.kind is DeviceKind.CUDA
    if on_cuda:
        require_gpus(native, shape.devices)
    model = open_model(native, shape, go_on=lambda: True, with_weights=False)
    reading = reading_shape(facts, shape.context_per_slot)
    uses = _uses(native, shape, model, reading_params(native.lib, shape, facts, reading))
    if facts.generates:
        uses = [replace(use, weights=0) for use in uses]  # they are there once, and both contexts tell of them
        uses += _uses(native, shape, model, context_params(native.lib, shape))
    # The library does not count what it takes for results with the first call.
    return [*uses, MemoryUse("CUDA_Host" if on_cuda else "CPU", 0, 0, output_bytes(facts, reading))]


def _uses(native: Native, shape: LlamaCppShape, model: Any, params: Any) -> list[MemoryUse]:
    context = native.lib.llama_init_from_model(model, params)
    if not context:
        raise load_failure(native, shape)
    return memory_breakdown(native.lib, context)
