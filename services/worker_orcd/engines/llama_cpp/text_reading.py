"""Embeddings of a loaded model, beside the runs that generate: they have a context and a lock of their own."""

import asyncio
import threading
from collections.abc import Sequence

from llorch.errors import InvalidArgument, Reason, Unavailable, invalid_field
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.reading_context import ReadingContext, Vector, packed, text_capacity
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import Embedded


class TextReading:
    """The context is made when it is first used, since it takes memory. `close` comes before the model is freed."""

    def __init__(self, native: Native, model: Model, shape: LlamaCppShape) -> None:
        self._native = native
        self._model = model
        self._shape = shape
        self._lock = threading.Lock()
        self._context: ReadingContext | None = None
        self._closed = False

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Between two packs of texts other calls get their turn, and a cancel takes effect."""
        tokens = await asyncio.to_thread(self._tokenize, texts)
        vectors: list[Vector] = []
        for pack in packed([len(text) for text in tokens], text_capacity(self._shape)):
            vectors += await asyncio.to_thread(self._evaluate, tokens[pack])
        return Embedded([vector.tolist() for vector in vectors], sum(len(text) for text in tokens))

    def close(self) -> None:
        """Waits for the pack that is being evaluated."""
        with self._lock:
            self._closed = True
            if self._context is not None:
                self._context.close()

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        with self._lock:
            self._refuse_if_closed()
            tokens = [self._model.tokenize(text, parse_special=False, add_special=True) for text in texts]
        capacity = text_capacity(self._shape)
        for number, text in enumerate(tokens):
            if not text:
                raise invalid_field(f"embed.inputs[{number}]", "has no tokens")
            if len(text) > capacity:
                raise InvalidArgument(
                    Reason.PROMPT_TOO_LONG, f"embed.inputs[{number}] has {len(text)} tokens, and at most {capacity} fit"
                )
        return tokens

    def _evaluate(self, texts: Sequence[Sequence[int]]) -> list[Vector]:
        with self._lock:
            self._refuse_if_closed()
            if self._context is None:
                self._context = ReadingContext(self._native, self._model, self._shape)
            return self._context.embed(texts)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable(Reason.DRAINING, "this worker is shutting down")
