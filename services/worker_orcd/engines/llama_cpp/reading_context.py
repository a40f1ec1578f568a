"""A context for embeddings: it evaluates whole texts and keeps nothing of them. For one thread at a time."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, Internal, Reason
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.model import Model, load_failure
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

MAX_TEXT_TOKENS = 2048
"""A text is evaluated in one piece, so that the compute buffers grow with the longest one."""

MAX_TEXTS = 16
"""Evaluated together, if they are short."""

Vector = NDArray[np.float32]


class ReadingContext:
    """Pools as the model's header says: the mean of all tokens, the first or the last one. By default the mean."""

    def __init__(self, native: Native, model: Model, shape: LlamaCppShape) -> None:
        self._lib: Any = native.lib
        self.capacity = text_capacity(shape)
        self._width = int(self._lib.llama_model_n_embd_out(model.handle))
        self._batch = Batch(self._lib, self.capacity)
        native.log.forget()
        self._handle = self._open(model, shape, self._lib.LLAMA_POOLING_TYPE_UNSPECIFIED)
        if self._pooling == self._lib.LLAMA_POOLING_TYPE_NONE:
            self.close()
            self._handle = self._open(model, shape, self._lib.LLAMA_POOLING_TYPE_MEAN)
        if not self._handle:
            raise load_failure(native, shape)
        if self._pooling == self._lib.LLAMA_POOLING_TYPE_RANK:
            self.close()
            raise FailedPrecondition(Reason.UNSUPPORTED_OPTION, "this model orders documents, it has no embeddings")

    def embed(self, texts: Sequence[Sequence[int]]) -> list[Vector]:
        """One vector of length 1 per text. At most MAX_TEXTS, together no longer than `capacity`."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._handle), True)
        self._batch.fill_step(
            list(itertools.chain.from_iterable(texts)),
            [position for text in texts for position in range(len(text))],
            [number for number, text in enumerate(texts) for _ in text],
        )
        code = self._lib.llama_decode(self._handle, self._batch.struct)
        if code != 0:
            raise Internal(Reason.ENGINE_FAILED, f"the engine failed with code {code}")
        return [self._vector(number) for number in range(len(texts))]

    def close(self) -> None:
        if self._handle:
            self._lib.llama_free(self._handle)
            self._handle = None

    @property
    def _pooling(self) -> int:
        return int(self._lib.llama_pooling_type(self._handle)) if self._handle else -1

    def _vector(self, number: int) -> Vector:
        address = self._lib.llama_get_embeddings_seq(self._handle, number)
        if not address:
            raise Internal(Reason.ENGINE_FAILED, "the engine gave no embedding")
        vector: Vector = np.ctypeslib.as_array(address, (self._width,)).copy()
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0:
            raise Internal(Reason.ENGINE_FAILED, "the engine gave an embedding that is not a direction")
        return vector / np.float32(length)

    def _open(self, model: Model, shape: LlamaCppShape, pooling: int) -> Any:
        on_cuda = shape.devices.kind is DeviceKind.CUDA
        params = self._lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.capacity
        params.n_seq_max = MAX_TEXTS
        params.n_threads = params.n_threads_batch = shape.threads
        params.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.embeddings = True
        params.pooling_type = pooling
        params.offload_kqv = params.op_offload = on_cuda
        params.kv_unified = True
        params.no_perf = True
        return self._lib.llama_init_from_model(model.handle, params)


def text_capacity(shape: LlamaCppShape) -> int:
    """Most tokens of a text."""
    return min(MAX_TEXT_TOKENS, -(-shape.context_per_slot // 256) * 256)


def packed(lengths: Sequence[int], capacity: int) -> list[slice]:
    """Texts that are evaluated together: as many as fit, in their order."""
    packs: list[slice] = []
    begin = tokens = 0
    for number, length in enumerate(lengths):
        if number > begin and (tokens + length > capacity or number - begin == MAX_TEXTS):
            packs.append(slice(begin, number))
            begin, tokens = number, 0
        tokens += length
    if lengths:
        packs.append(slice(begin, len(lengths)))
    return packs
