"""Vectors and scores of whole texts, against llama.cpp's own pooling of one text at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from llorch.gguf.model_file import read_model
from support.gguf_writer import write_gguf
from support.llama_reference import ReadingReference, Rows
from support.tiny_models import (
    ARCHITECTURES,
    CLS,
    LAST,
    MEAN,
    RANK,
    WORDS,
    tiny_model,
    write_tiny_model,
    write_tiny_reader,
)
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

pytestmark = pytest.mark.native

CONTEXT = 512
QUERY = "what time is it now"
RANK_TEMPLATE = "<|im_start|>Is it said?\nQuery: {query}\nDocument: {document}<|im_end|>\n"


def text(words: int, begin: int = 0) -> str:
    return " ".join(WORDS[(begin + 7 * number) % len(WORDS)] for number in range(words))


TEXTS = ["hello", text(30), text(3, 5), text(180), text(160, 3), *(text(4, number) for number in range(20))]
"""One has several pieces, some share a piece, and there are more than are read together."""


@asynccontextmanager
async def loaded(path: Path, context: int = CONTEXT) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(LlamaCppShape(path, "m", DeviceSet(DeviceKind.CPU, ("cpu",)), 2, context, threads=2))
    try:
        await engine.load()
        yield engine
    finally:
        await engine.close()


def cosine(one: Rows, other: Rows) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


async def check_vectors(path: Path, pooling: int) -> None:
    async with loaded(path) as engine:
        embedded = await engine.embed(TEXTS)
    with ReadingReference(path, CONTEXT, pooling) as reference:
        expected = [reference.read(reference.tokens(text)) for text in TEXTS]
        assert embedded.tokens_in == sum(len(reference.tokens(text)) for text in TEXTS)
    closeness = [cosine(np.array(got), right) for got, right in zip(embedded.vectors, expected, strict=True)]
    assert min(closeness) >= 0.9999
    apart = [cosine(expected[0], other) for other in expected[1:]]
    assert min(apart) < 0.99, "else nothing is shown"


@pytest.mark.req("WORK-3007")
@pytest.mark.parametrize(
    ("architecture", "pooling"), [("bert", MEAN), ("bert", CLS), ("bert", LAST), ("qwen3", MEAN), ("qwen3", LAST)]
)
async def test_a_model_for_embeddings_pools_as_the_library_does(
    tmp_path: Path, architecture: str, pooling: int
) -> None:
    await check_vectors(write_tiny_reader(tmp_path, architecture, pooling), pooling)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
async def test_every_other_model_gives_the_mean(tmp_path: Path, architecture: str) -> None:
    await check_vectors(write_tiny_model(tmp_path, architecture), MEAN)


@pytest.mark.req("WORK-3007")
@pytest.mark.parametrize(("architecture", "template"), [("bert", ""), ("qwen3", ""), ("qwen3", RANK_TEMPLATE)])
async def test_a_model_that_ranks_scores_as_the_library_does(tmp_path: Path, architecture: str, template: str) -> None:
    path = write_tiny_reader(tmp_path, architecture, RANK, rank_template=template)
    async with loaded(path) as engine:
        assert engine.info().capabilities.declared() == {"rerank"}
        ranked = await engine.rank(QUERY, TEXTS)
    with ReadingReference(path, CONTEXT, RANK) as reference:
        for document, score in zip(TEXTS, ranked.scores, strict=True):
            filled = template.replace("{query}", QUERY).replace("{document}", document)
            tokens = (
                reference.tokens(filled, around=False, control_tokens=True)
                if template
                else reference.pair(QUERY, document)
            )
            assert score == pytest.approx(reference.read(tokens)[0], abs=2e-3)
    assert len({round(score, 3) for score in ranked.scores}) > len(TEXTS) / 2


async def test_a_control_token_in_a_document_stays_text(tmp_path: Path) -> None:
    path = write_tiny_reader(tmp_path, "qwen3", RANK, rank_template=RANK_TEMPLATE)
    async with loaded(path) as engine:
        plain, spelled = [(await engine.rank(QUERY, [document])).tokens_in for document in ("", "<|im_end|>")]
    assert spelled - plain > 3


async def test_a_model_that_only_embeds_generates_nothing_and_takes_no_cache_for_it(tmp_path: Path) -> None:
    async with loaded(write_tiny_reader(tmp_path, "qwen3", LAST)) as engine:
        assert engine.info().capabilities.declared() == {"embeddings"}
        assert engine.stats().slots_busy == 0


async def test_a_text_beyond_the_context_of_an_encoder_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with loaded(write_tiny_model(tmp_path, "bert"), context=256) as engine:
        assert engine.info().context_per_slot == 256
        with pytest.raises(InvalidArgument, match=r"inputs\[1\] has \d+ tokens, and at most 256 fit") as refused:
            await engine.embed(["hello", text(300)])
        assert refused.value.reason is Reason.PROMPT_TOO_LONG
        assert len((await engine.embed(["hello"])).vectors) == 1


async def test_a_text_beyond_the_positions_that_a_model_knows_is_refused_whatever_the_context(tmp_path: Path) -> None:
    async with loaded(write_tiny_model(tmp_path, "bert"), context=4096) as engine:
        with pytest.raises(InvalidArgument, match=r"inputs\[0\] has 602 tokens, and at most 512 fit"):
            await engine.embed([" ".join(["hello"] * 600)])
        assert len((await engine.embed([" ".join(["hello"] * 510)] * 5)).vectors) == 5


async def test_a_pair_that_is_too_long_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with loaded(write_tiny_reader(tmp_path, "bert", RANK), context=256) as engine:
        with pytest.raises(InvalidArgument, match=r"documents\[0\] has \d+ tokens with the query, and at most 256 fit"):
            await engine.rank(text(150), [text(150)])


async def test_who_leaves_frees_the_model_after_the_piece_that_is_read(tmp_path: Path) -> None:
    async with loaded(write_tiny_reader(tmp_path, "qwen3", LAST), context=8192) as engine:
        long = asyncio.create_task(engine.embed([text(3000)] * 8))
        await asyncio.sleep(0)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        async with asyncio.timeout(20):
            assert len((await engine.embed(["hello"])).vectors) == 1


def test_a_model_that_says_it_ranks_and_has_no_classifier_is_refused(tmp_path: Path) -> None:
    metadata, tensors = tiny_model("bert")
    path = write_gguf(tmp_path / "x.gguf", metadata | {"bert.pooling_type": RANK}, tensors)
    with pytest.raises(FailedPrecondition, match="has no classifier"):
        read_model(path)
