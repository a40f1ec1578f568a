"""The memory and the compute buffers that sequences are decoded in. Belongs to the engine's thread."""

import ctypes
from typing import Any

import numpy as np

from llorch.device_kind import DeviceKind
from llorch.gguf.memory_estimate import BATCH_TOKENS
from worker_orcd.engines.llama_cpp.abort_switch import AbortSwitch
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.host_cache import State
from worker_orcd.engines.llama_cpp.memory_kind import MemoryKind
from worker_orcd.engines.llama_cpp.model import Model, load_failure
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

ABORTED = 2
"""What `llama_decode` returns when it was told to stop."""


class DecodeError(Exception):
    """`llama_decode` refused a batch; `code` is what it returned."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}")
        self.code = code


class RestoreFailed(Exception):
    """The library refused a state that is whole, and is not to be trusted from here on.

    The worker ends, and its runs go on with the next one. llama.cpp has given wrong answers after such a refusal.
    """


class Context:
    """One sequence per slot, each with its own part of the KV cache, so that slots do not disturb each other."""

    def __init__(self, native: Native, model: Model, shape: LlamaCppShape) -> None:
        self._lib: Any = native.lib
        self.handle = self._lib.llama_init_from_model(model.handle, context_params(self._lib, shape))
        if not self.handle:
            raise load_failure(native, shape)
        self._memory = self._lib.llama_get_memory(self.handle)
        self.kind = _memory_kind(self._lib, model)
        self.abort_switch = AbortSwitch(self._lib, self.handle)
        self._to_be_copied: set[int] = set()
        """Slots that the library makes copies of others when it decodes next."""

    @property
    def copies_pending(self) -> bool:
        """Until they are made, the library must write no states, and can read only those of the other slots."""
        return bool(self._to_be_copied)

    def decode(self, batch: Batch) -> None:
        self._to_be_copied.clear()
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
        self._to_be_copied.add(target)

    def trim(self, sequence: int, keep: int) -> bool:
        """Forgets all but the first `keep` tokens; False if this kind of memory can't, and nothing is changed."""
        return bool(self._lib.llama_memory_seq_rm(self._memory, sequence, keep, -1))

    def first_position(self, sequence: int) -> int:
        """The oldest position that every layer still has; -1 for an empty slot."""
        return int(self._lib.llama_memory_seq_pos_min(self._memory, sequence))

    def last_position(self, sequence: int) -> int:
        """-1 for an empty slot."""
        return int(self._lib.llama_memory_seq_pos_max(self._memory, sequence))

    def state_bytes(self, sequence: int) -> int:
        return int(self._lib.llama_state_seq_get_size_ext(self.handle, sequence, 0))

    def save(self, sequence: int) -> State | None:
        """All that the slot holds; None if it can't be read now."""
        if sequence in self._to_be_copied:
            return None
        state = np.empty(self.state_bytes(sequence), np.uint8)
        written = self._lib.llama_state_seq_get_data_ext(self.handle, _bytes_of(state), state.nbytes, sequence, 0)
        return state if written == state.nbytes else None

    def restore(self, sequence: int, state: State, tokens: int) -> None:
        """Makes the slot what was saved, so many tokens. Raises RestoreFailed. Not while copies are pending."""
        self.forget(sequence)
        read = self._lib.llama_state_seq_set_data_ext(self.handle, _bytes_of(state), state.nbytes, sequence, 0)
        last = self.last_position(sequence)
        if read != state.nbytes or last != tokens - 1:
            raise RestoreFailed(f"read {read} of {state.nbytes} bytes, up to position {last} of {tokens - 1}")

    def wait_computed(self) -> None:
        """A GPU computes while `decode` has returned already."""
        self._lib.llama_synchronize(self.handle)

    def close(self) -> None:
        self._lib.llama_free(self.handle)


def context_params(lib: Any, shape: LlamaCppShape) -> Any:
    """What a context is made with; also what its memory is estimated with."""
    on_cuda = shape.devices.kind is DeviceKind.CUDA
    params = lib.llama_context_default_params()
    params.n_ctx = shape.context_per_slot * shape.slots
    params.n_batch, params.n_ubatch = BATCH_TOKENS, shape.compute_tokens
    params.n_seq_max = shape.slots
    params.n_outputs_max = shape.slots
    params.n_threads = params.n_threads_batch = shape.threads
    params.flash_attn_type = _flash_attention(lib, shape)
    params.type_k = _cache_type(lib, shape.cache_type_k)
    params.type_v = _cache_type(lib, shape.cache_type_v)
    params.offload_kqv = params.op_offload = on_cuda
    params.kv_unified = False
    params.swa_full = False
    params.no_perf = True
    return params


def _flash_attention(lib: Any, shape: LlamaCppShape) -> int:
    """Always set on or off: if the library chose, the bits of an answer would depend on its choice."""
    return int(lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if shape.flash_attention else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED)


def _memory_kind(lib: Any, model: Model) -> MemoryKind:
    keeps_states = lib.llama_model_is_recurrent(model.handle) or lib.llama_model_is_hybrid(model.handle)
    return MemoryKind(trims=not keeps_states, window=max(0, int(lib.llama_model_n_swa(model.handle))))


def _bytes_of(state: State) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _cache_type(lib: Any, name: str) -> int:
    return int(getattr(lib, f"GGML_TYPE_{name.upper()}"))
