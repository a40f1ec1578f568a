"""Vectors and scores of a loaded model, beside the runs that generate."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from llorch.errors import Internal, InvalidArgument, Reason, Unavailable, invalid_field
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.rank_prompt import RankPrompt
from worker_orcd.engines.llama_cpp.reading_context import Numbers, ReadingContext
from worker_orcd.engines.protocol import Embedded, Ranked

MOST_TOKENS_TOGETHER = 2048
"""Between two packs of texts other calls get their turn: a pack is short, unless one text is longer."""

_Result = TypeVar("_Result")


class TextReading:
    """Has a thread that makes tokens and one that computes, so that long texts keep no other work of the worker from
    its threads. What has not begun when its caller leaves is not done.

    Owns the context; `close` comes before the model is freed.
    """

    def __init__(self, model: Model, context: ReadingContext) -> None:
        self._model = model
        self._context = context
        self._rank_prompt = RankPrompt(model)
        self._tokenizing = ThreadPoolExecutor(1, "tokens of texts")
        self._computing = ThreadPoolExecutor(1, "reading of texts")
        self._closed = threading.Event()

    @property
    def most_tokens(self) -> int:
        """Of a text, or of a query with a document."""
        return self._context.shape.tokens

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Raises InvalidArgument for the first text that has no tokens, or too many."""
        tokens = []
        for number, text in enumerate(texts):
            field = f"embed.inputs[{number}]"
            self._refuse_far_too_long(field, "", text)
            tokens.append(self._fitting(field, "", await self._in(self._tokenizing, self._model.tokenize_whole, text)))
        vectors = [_of_length_one(vector).tolist() for vector in await self._read(tokens)]
        return Embedded(vectors, sum(map(len, tokens)))

    async def rank(self, query: str, documents: Sequence[str]) -> Ranked:
        """Raises InvalidArgument for the first document that is too long together with the query."""
        tokens, together = [], " with the query"
        for number, document in enumerate(documents):
            field = f"rerank.documents[{number}]"
            self._refuse_far_too_long(field, together, query, document)
            pair = await self._in(self._tokenizing, self._rank_prompt.tokens, query, document)
            tokens.append(self._fitting(field, together, pair))
        scores = [_score(numbers) for numbers in await self._read(tokens)]
        return Ranked(scores, sum(map(len, tokens)))

    def close(self) -> None:
        """Waits for the text of which tokens are made, and for the piece that is evaluated."""
        self._closed.set()
        for thread in (self._tokenizing, self._computing):
            thread.shutdown(cancel_futures=True)
        self._context.close()

    async def _read(self, texts: Sequence[Sequence[int]]) -> list[Numbers]:
        left = threading.Event()
        results: list[Numbers] = []
        most = min(self.most_tokens, MOST_TOKENS_TOGETHER)
        try:
            for pack in packed([len(text) for text in texts], most, self._context.shape.texts):
                results += await self._in(self._computing, self._evaluate, texts[pack], left.is_set)
        finally:
            left.set()
        return results

    def _evaluate(self, texts: Sequence[Sequence[int]], has_left: Callable[[], bool]) -> list[Numbers]:
        found = self._context.read(texts, lambda: not (self._closed.is_set() or has_left()))
        if found is None:
            raise _closing()
        return found

    async def _in(self, thread: ThreadPoolExecutor, call: Callable[..., _Result], *arguments: object) -> _Result:
        if self._closed.is_set():
            raise _closing()
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, partial(call, *arguments))
        except (RuntimeError, asyncio.CancelledError):
            current = asyncio.current_task()
            if self._closed.is_set() and not (current is not None and current.cancelling()):
                raise _closing() from None
            raise

    def _refuse_far_too_long(self, field: str, what: str, *texts: str) -> None:
        """Before megabytes are tokenized for nothing: no token is longer than the longest piece."""
        least = sum(len(text.encode()) for text in texts) // self._model.longest_piece_bytes
        if least > self.most_tokens:
            raise self._too_long(field, f"at least {least}", what)

    def _fitting(self, field: str, what: str, tokens: list[int]) -> list[int]:
        if not tokens:
            raise invalid_field(field, "has no tokens")
        if len(tokens) > self.most_tokens:
            raise self._too_long(field, str(len(tokens)), what)
        return tokens

    def _too_long(self, field: str, tokens: str, what: str) -> InvalidArgument:
        return InvalidArgument(
            Reason.PROMPT_TOO_LONG,
            f"{field} has {tokens} tokens{what}, and at most {self.most_tokens} fit; shorten it or send it in parts",
            metadata={"field": field},
        )


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


def _closing() -> Unavailable:
    return Unavailable(Reason.DRAINING, "this worker is shutting down; try again")


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
