"""llama.cpp itself, one prompt at a time in an empty context: what any engine built on it has to say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llorch.cache_type import CacheType

Rows = NDArray[np.float64]
_BATCH = 512


class _Opened:
    """A model of the library with a context, used directly, by none of our modules. Closed by leaving the block."""

    def __init__(self, model_path: Path, tokens: int, set_params: Callable[[Any, Any], None]) -> None:
        """`tokens` are those of a batch; `set_params` gets the library and the parameters of the context."""
        from llama_cpp import llama_cpp as lib

        self._lib: Any = lib
        of_model = lib.llama_model_default_params()
        of_model.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(str(model_path).encode(), of_model)
        self._vocabulary = lib.llama_model_get_vocab(self._model)
        params = lib.llama_context_default_params()
        params.n_batch = params.n_ubatch = tokens
        params.n_seq_max = params.n_threads = params.n_threads_batch = 1
        params.swa_full = True
        params.offload_kqv = params.op_offload = False
        set_params(lib, params)
        self._context = lib.llama_init_from_model(self._model, params)
        self._batch = lib.llama_batch_init(tokens, 0, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def tokens(self, text: str, *, around: bool = True, control_tokens: bool = False) -> list[int]:
        """With `around` also those that the vocabulary wants around a text, such as the beginning of a prompt."""
        raw = text.encode()
        room = (self._lib.llama_token * (len(raw) + 16))()
        count = self._lib.llama_tokenize(self._vocabulary, raw, len(raw), room, len(room), around, control_tokens)
        return list(room[:count])

    def _forget(self) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)

    def _evaluate(self, tokens: Sequence[int], begin: int, *, all_outputs: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, begin + at, 1
            batch.seq_id[at][0] = 0
            batch.logits[at] = all_outputs or at == len(tokens) - 1
        assert self._lib.llama_decode(self._context, batch) == 0

    def _row(self, address: Any, width: int) -> Rows:
        return np.ctypeslib.as_array(address, (width,)).astype(np.float64)


class LlamaReference(_Opened):
    """Log probabilities. Layers with a window keep everything, too, so nothing is missing."""

    def __init__(self, model_path: Path, context: int, cache_type: CacheType = CacheType.F16) -> None:
        def set_params(lib: Any, params: Any) -> None:
            params.n_ctx = context
            params.type_k = params.type_v = getattr(lib, f"GGML_TYPE_{cache_type.upper()}")
            params.flash_attn_type = int(cache_type is not CacheType.F16)

        super().__init__(model_path, _BATCH, set_params)
        self.words = int(self._lib.llama_vocab_n_tokens(self._vocabulary))

    def logprobs(self, prompt: Sequence[int], answer: Sequence[int]) -> Rows:
        """Of every token of the vocabulary, one row per token of the answer: of what came before it. The prompt is
        evaluated at once, the answer token by token, since rounding depends on how many there are.
        """
        self._forget()
        for begin in range(0, len(prompt), _BATCH):
            self._evaluate(prompt[begin : begin + _BATCH], begin, all_outputs=False)
        rows = [self._last_row()]
        for position, token in enumerate(answer[:-1], len(prompt)):
            self._evaluate([token], position, all_outputs=False)
            rows.append(self._last_row())
        return np.array([row - _total(row) for row in rows])

    def _last_row(self) -> Rows:
        return self._row(self._lib.llama_get_logits_ith(self._context, -1), self.words)


class ReadingReference(_Opened):
    """One whole text at a time in one piece, pooled by the library: vectors as they are, or scores."""

    def __init__(self, model_path: Path, tokens: int, pooling: int) -> None:
        """`tokens` is the longest text, `pooling` the library's number."""

        def set_params(_lib: Any, params: Any) -> None:
            params.n_ctx = tokens
            params.embeddings, params.pooling_type = True, pooling
            params.flash_attn_type = 0

        super().__init__(model_path, tokens, set_params)
        lib, is_rank = self._lib, pooling == self._lib.LLAMA_POOLING_TYPE_RANK
        self._width = int((lib.llama_model_n_cls_out if is_rank else lib.llama_model_n_embd_out)(self._model))

    def pair(self, query: str, document: str) -> list[int]:
        """As the library's own server puts a query and a document together for a model without a template for it."""
        lib, vocabulary = self._lib, self._vocabulary
        end = lib.llama_vocab_eos(vocabulary)
        ends = [end if end >= 0 else lib.llama_vocab_sep(vocabulary)] if lib.llama_vocab_get_add_eos(vocabulary) else []
        between = [lib.llama_vocab_sep(vocabulary)] if lib.llama_vocab_get_add_sep(vocabulary) else []
        begin = [lib.llama_vocab_bos(vocabulary)] if lib.llama_vocab_get_add_bos(vocabulary) else []
        texts = [self.tokens(text, around=False) for text in (query, document)]
        return [*begin, *texts[0], *ends, *between, *texts[1], *ends]

    def read(self, tokens: Sequence[int]) -> Rows:
        self._forget()
        self._evaluate(tokens, 0, all_outputs=True)
        return self._row(self._lib.llama_get_embeddings_seq(self._context, 0), self._width)


def _total(row: Rows) -> float:
    highest = float(row.max())
    return highest + float(np.log(np.exp(row - highest).sum()))
