"""The memory and the compute buffers that sequences are decoded in. Belongs to the engine's thread."""

from typing import Any

from worker_orcd.device import DeviceKind
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.model import Model, load_failure
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.shape import BATCH_TOKENS, LlamaCppShape


class DecodeError(Exception):
    """`llama_decode` refused a batch; `code` is what it returned."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}")
        self.code = code


class Context:
    """One sequence per slot, each with its own part of the KV cache, so that slots do not disturb each other."""

    def __init__(self, native: Native, model: Model, shape: LlamaCppShape) -> None:
        self._lib: Any = native.lib
        self.handle = self._lib.llama_init_from_model(model.handle, _params(self._lib, shape))
        if not self.handle:
            raise load_failure(native, shape)
        self._memory = self._lib.llama_get_memory(self.handle)

    def decode(self, batch: Batch) -> None:
        code = self._lib.llama_decode(self.handle, batch.struct)
        if code != 0:
            raise DecodeError(code)

    def forget(self, sequence: int) -> None:
        """Empties a slot. Whole sequences can be removed whatever the model's architecture is."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def copy(self, source: int, target: int) -> None:
        """Makes the slot `target` what `source` is. Only whole sequences can be copied between slots: a part
        aborts the process.
        """
        self.forget(target)
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def close(self) -> None:
        self._lib.llama_free(self.handle)


def _params(lib: Any, shape: LlamaCppShape) -> Any:
    on_cuda = shape.devices.kind is DeviceKind.CUDA
    params = lib.llama_context_default_params()
    params.n_ctx = shape.context_per_slot * shape.slots
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.n_seq_max = shape.slots
    params.n_outputs_max = shape.slots
    params.n_threads = params.n_threads_batch = shape.threads
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.type_k = _cache_type(lib, shape.cache_type_k)
    params.type_v = _cache_type(lib, shape.cache_type_v)
    params.offload_kqv = params.op_offload = on_cuda
    params.kv_unified = False
    params.swa_full = False
    params.no_perf = True
    return params


def _cache_type(lib: Any, name: str) -> int:
    return int(getattr(lib, f"GGML_TYPE_{name.upper()}"))
