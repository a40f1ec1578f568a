"""Vectors and scores of a loaded model, beside the runs that generate: they have a context and a lock of their own."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np

from llorch.errors import Internal, InvalidArgument, Reason, Unavailable, invalid_field
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.rank_prompt import RankPrompt
from worker_orcd.engines.llama_cpp.reading_context import Numbers, ReadingContext
from worker_orcd.engines.protocol import Embedded, Ranked

MOST_TOKENS_TOGETHER = 2048
"""Between two packs of texts other calls get their turn: a pack is short, unless one text is longer."""


class TextReading:
    """Owns the context; `close` comes before the model is freed."""

    def __init__(self, model: Model, context: ReadingContext) -> None:
        self._model = model
        self._context = context
        self._rank_prompt = RankPrompt(model)
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def most_tokens(self) -> int:
        """Of a text, or of a query with a document."""
        return self._context.shape.tokens

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Raises InvalidArgument for the first text that has no tokens, or too many."""
        tokens = await asyncio.to_thread(self._tokenize, texts)
        self._check(tokens, "embed.inputs")
        vectors = [_of_length_one(vector).tolist() for vector in await self._read(tokens)]
        return Embedded(vectors, sum(map(len, tokens)))

    async def rank(self, query: str, documents: Sequence[str]) -> Ranked:
        """Raises InvalidArgument for the first document that is too long together with the query."""
        tokens = await asyncio.to_thread(self._pairs, query, documents)
        self._check(tokens, "rerank.documents", " with the query")
        scores = [_score(numbers) for numbers in await self._read(tokens)]
        return Ranked(scores, sum(map(len, tokens)))

    def close(self) -> None:
        """Waits for the piece that is being evaluated."""
        self._closed.set()
        with self._lock:
            self._context.close()

    async def _read(self, texts: Sequence[Sequence[int]]) -> list[Numbers]:
        """Between two packs other calls get their turn; a cancel takes effect after the piece that is evaluated."""
        left = threading.Event()
        results: list[Numbers] = []
        most = min(self._context.shape.tokens, MOST_TOKENS_TOGETHER)
        try:
            for pack in packed([len(text) for text in texts], most, self._context.shape.texts):
                results += await asyncio.to_thread(self._evaluate, texts[pack], left.is_set)
        finally:
            left.set()
        return results

    def _evaluate(self, texts: Sequence[Sequence[int]], has_left: Callable[[], bool]) -> list[Numbers]:
        with self._lock:
            self._refuse_if_closed()
            found = self._context.read(texts, lambda: not (self._closed.is_set() or has_left()))
            if found is None:
                raise Unavailable(Reason.DRAINING, "this worker is shutting down, or the caller has left")
            return found

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        with self._lock:
            self._refuse_if_closed()
            return [self._model.tokenize_whole(text) for text in texts]

    def _pairs(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        with self._lock:
            self._refuse_if_closed()
            return [self._rank_prompt.tokens(query, document) for document in documents]

    def _check(self, texts: Sequence[Sequence[int]], field: str, what: str = "") -> None:
        capacity = self._context.shape.tokens
        for number, text in enumerate(texts):
            if not text:
                raise invalid_field(f"{field}[{number}]", "has no tokens")
            if len(text) > capacity:
                raise InvalidArgument(
                    Reason.PROMPT_TOO_LONG,
                    f"{field}[{number}] has {len(text)} tokens{what}, and at most {capacity} fit",
                )

    def _refuse_if_closed(self) -> None:
        if self._closed.is_set():
            raise Unavailable(Reason.DRAINING, "this worker is shutting down")


def packed(lengths: Sequence[int], most_tokens: int, most_texts: int) -> list[slice]:
    """Texts that are evaluated together: as many as fit, in their order. One that is longer goes alone."""
    packs: list[slice] = []
    begin = tokens = 0
    for number, length in enumerate(lengths):
        if number > begin and (tokens + length > most_tokens or number - begin == most_texts):
            packs.append(slice(begin, number))
            begin, tokens = number, 0
        tokens += length
    if lengths:
        packs.append(slice(begin, len(lengths)))
    return packs


def _of_length_one(vector: Numbers) -> Numbers:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise Internal(Reason.ENGINE_FAILED, "the engine gave an embedding that is not a direction")
    return vector / np.float32(length)


def _score(numbers: Numbers) -> float:
    """A model with several outputs has the one for "it answers the query" first."""
    score = float(numbers[0])
    if not np.isfinite(score):
        raise Internal(Reason.ENGINE_FAILED, "the engine gave a score that is not a number")
    return score
