"""A context that reads whole texts, for vectors and for scores, and keeps nothing of them. For one thread at a time."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, Internal, Reason
from llorch.gguf.facts import ModelFacts
from llorch.gguf.reading import ReadingShape, reading_shape
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.model import Model, load_failure
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.pooling import Pool, pool_of, used_pooling
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

Numbers = NDArray[np.float32]


class ReadingContext:
    """A model whose tokens see only those before them reads piece by piece, and the pieces' rows are pooled here: the
    library pools only what it computes in one go. Any other reads each text in one go, and the library pools.

    What is pooled is what the model's header says: the mean of all tokens, the first or the last one. By default the
    mean.
    """

    def __init__(self, native: Native, model: Model, shape: LlamaCppShape, facts: ModelFacts) -> None:
        self._lib: Any = native.lib
        self.shape = reading_shape(facts, shape.context_per_slot)
        self._pool = pool_of(used_pooling(facts)) if not (facts.bidirectional or facts.ranks) else None
        self._width = int(self._lib.llama_model_n_cls_out(model.handle)) if facts.ranks else model.vector_width
        self._batch = Batch(self._lib, self.shape.tokens_at_once)
        native.log.forget()
        self._handle = self._lib.llama_init_from_model(
            model.handle, reading_params(self._lib, shape, facts, self.shape)
        )
        if not self._handle:
            raise load_failure(native, shape)
        if not facts.bidirectional and not self._lib.llama_get_memory(self._handle):
            # Read in pieces of which nothing is kept, its texts would have other vectors.
            self.close()
            raise FailedPrecondition(
                Reason.MODEL_LOAD_FAILED,
                f"{shape.model_path.name}: {facts.architecture} models keep nothing of a text, which this release does "
                "not know of them; a later one may",
            )

    def read(self, texts: Sequence[Sequence[int]], go_on: Callable[[], bool]) -> list[Numbers] | None:
        """What the model makes of each text: a vector as it is, or scores. None where `go_on` said no, which is asked
        after every piece. At most `shape.texts`, together no longer than `shape.tokens`.
        """
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._handle), True)
        tokens = list(itertools.chain.from_iterable(texts))
        positions = [position for text in texts for position in range(len(text))]
        owners = [number for number, text in enumerate(texts) for _ in text]
        pools = [self._pool(self._width) for _ in texts] if self._pool is not None else []
        found: dict[int, Numbers] = {}
        for begin in range(0, len(tokens), self.shape.tokens_at_once):
            piece = slice(begin, begin + self.shape.tokens_at_once)
            self._decode(tokens[piece], positions[piece], owners[piece])
            if pools:
                self._take_rows(owners[piece], pools)
            else:
                # The library has one row per text of this call; the one of its last piece stays.
                found |= {number: self._pooled(number) for number in dict.fromkeys(owners[piece])}
            if not go_on():
                return None
        return [pool.result() for pool in pools] or [found[number] for number in range(len(texts))]

    def close(self) -> None:
        if self._handle:
            self._lib.llama_free(self._handle)
            self._handle = None

    def _decode(self, tokens: Sequence[int], positions: Sequence[int], owners: Sequence[int]) -> None:
        self._batch.fill_step(tokens, positions, owners)
        code = self._lib.llama_decode(self._handle, self._batch.struct)
        if code != 0:
            raise Internal(Reason.ENGINE_FAILED, f"the engine failed with code {code}")

    def _take_rows(self, owners: Sequence[int], pools: Sequence[Pool]) -> None:
        """One row per token; each text gets its own."""
        rows = self._as_array(self._lib.llama_get_embeddings(self._handle), (len(owners), self._width))
        begin = 0
        for owner, group in itertools.groupby(owners):
            end = begin + len(list(group))
            pools[owner].add(rows[begin:end])
            begin = end

    def _pooled(self, number: int) -> Numbers:
        return self._as_array(self._lib.llama_get_embeddings_seq(self._handle, number), (self._width,)).copy()

    @staticmethod
    def _as_array(address: Any, shape: tuple[int, ...]) -> Numbers:
        if not address:
            raise Internal(Reason.ENGINE_FAILED, "the engine gave no result for a text")
        return np.ctypeslib.as_array(address, shape)


def reading_params(lib: Any, shape: LlamaCppShape, facts: ModelFacts, reading: ReadingShape) -> Any:
    """What the context is made with; also what its memory is estimated with."""
    on_cuda = shape.devices.kind is DeviceKind.CUDA
    params = lib.llama_context_default_params()
    params.n_ctx = reading.tokens
    params.n_batch = params.n_ubatch = reading.tokens_at_once
    params.n_seq_max = reading.texts
    params.n_threads = params.n_threads_batch = shape.threads
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.embeddings = True
    params.pooling_type = _library_pooling(lib, facts)
    params.offload_kqv = params.op_offload = on_cuda
    params.kv_unified = True
    params.swa_full = False
    params.no_perf = True
    return params


def _library_pooling(lib: Any, facts: ModelFacts) -> int:
    if not (facts.bidirectional or facts.ranks):
        return int(lib.LLAMA_POOLING_TYPE_NONE)
    return int(getattr(lib, f"LLAMA_POOLING_TYPE_{used_pooling(facts).upper()}"))
