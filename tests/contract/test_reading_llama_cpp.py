"""Vectors and scores of whole texts, against llama.cpp's own pooling of one text at a time."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from llorch.gguf import layers
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
from worker_orcd.engines.llama_cpp import engine_thread
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.reading_context import ReadingContext
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.run_spec import Demand, RunSpec
from worker_orcd.token_reader import answer

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


async def test_a_model_that_only_embeds_has_no_memory_for_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a context for answers was made")

    monkeypatch.setattr(engine_thread, "Context", fail)
    async with loaded(write_tiny_reader(tmp_path, "qwen3", LAST)) as engine:
        assert engine.info().capabilities.declared() == {"embeddings"}
        assert len((await engine.embed(["hello"])).vectors) == 1
        engine.cancel("unknown")


async def test_a_text_beyond_the_context_of_an_encoder_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with loaded(write_tiny_model(tmp_path, "bert"), context=256) as engine:
        assert engine.info().context_per_slot == 256
        with pytest.raises(InvalidArgument, match=r"inputs\[1\] has \d+ tokens, and at most 256 fit") as refused:
            await engine.embed(["hello", text(300)])
        assert refused.value.reason is Reason.PROMPT_TOO_LONG
        assert len((await engine.embed(["hello"])).vectors) == 1


async def test_a_text_beyond_the_positions_that_a_model_knows_is_refused_whatever_the_context(tmp_path: Path) -> None:
    async with loaded(write_tiny_model(tmp_path, "bert"), context=4096) as engine:
        with pytest.raises(InvalidArgument, match=r"inputs\[0\] has 522 tokens, and at most 512 fit; shorten it"):
            await engine.embed([" ".join(["hello"] * 520)])
        with pytest.raises(
            InvalidArgument, match=r"inputs\[1\] has at least \d{5} tokens, and at most 512 fit"
        ) as refused:
            await engine.embed(["hello", "hello " * 100_000])
        assert refused.value.field == "embed.inputs[1]"
        assert len((await engine.embed([" ".join(["hello"] * 510)] * 5)).vectors) == 5


async def test_a_pair_that_is_too_long_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with loaded(write_tiny_reader(tmp_path, "bert", RANK), context=256) as engine:
        with pytest.raises(InvalidArgument, match=r"documents\[0\] has \d+ tokens with the query, and at most 256 fit"):
            await engine.rank(text(150), [text(150)])


async def test_who_leaves_is_computed_no_further_and_who_waits_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    begun = threading.Event()
    decode = ReadingContext._decode

    def heard(context: ReadingContext, tokens: list[int], *others: list[int]) -> None:
        pieces.append(len(tokens))
        begun.set()
        decode(context, tokens, *others)

    monkeypatch.setattr(ReadingContext, "_decode", heard)
    async with loaded(write_tiny_reader(tmp_path, "qwen3", LAST), context=8192) as engine:
        long = [text(3000)] * 3
        calls = [asyncio.create_task(engine.embed(long)) for _ in range(4)]
        assert await asyncio.to_thread(begun.wait, 60)
        for call in calls:
            call.cancel()
        assert await asyncio.gather(*calls, return_exceptions=True)
        async with asyncio.timeout(60):
            assert len((await engine.embed(["hello"])).vectors) == 1
    assert sum(pieces) < 3000, "a piece or two of the first text, and the one word"


async def test_a_close_in_the_middle_ends_the_calls_with_the_reason(tmp_path: Path) -> None:
    async with loaded(write_tiny_reader(tmp_path, "qwen3", LAST), context=8192) as engine:
        calls = [asyncio.create_task(engine.embed([text(3000)] * 3)) for _ in range(3)]
        await asyncio.sleep(0)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {getattr(end, "reason", None) for end in ends} == {Reason.DRAINING}


@pytest.mark.parametrize("pooling", [MEAN, CLS, RANK])
@pytest.mark.parametrize("trained", [5, 15, 300, 500, 514])
async def test_any_length_that_a_model_was_trained_with_loads_and_reads_up_to_it(
    tmp_path: Path, trained: int, pooling: int
) -> None:
    """llama.cpp aborts the process where a text is no multiple of the texts that it makes room for."""
    path = write_tiny_reader(tmp_path, "bert", pooling, context=trained)
    async with loaded(path, context=4096) as engine:
        most = engine.info().context_per_slot
        assert trained - 16 < most <= trained
        if pooling == RANK:
            return
        assert (await engine.embed([" ".join(["hello"] * (most - 2))])).tokens_in == most


@pytest.mark.parametrize("trained", [4, 15])
async def test_a_model_that_was_trained_with_a_few_tokens_loads(tmp_path: Path, trained: int) -> None:
    metadata, tensors = tiny_model("llama")
    path = write_gguf(tmp_path / "x.gguf", metadata | {"llama.context_length": trained}, tensors)
    async with loaded(path) as engine:
        assert len((await engine.embed(["hello"])).vectors) == 1


def test_a_model_that_says_it_ranks_and_has_no_classifier_is_refused(tmp_path: Path) -> None:
    metadata, tensors = tiny_model("bert")
    path = write_gguf(tmp_path / "x.gguf", metadata | {"bert.pooling_type": RANK}, tensors)
    with pytest.raises(FailedPrecondition, match="has no classifier"):
        read_model(path)


async def test_an_architecture_of_which_it_is_not_known_that_it_keeps_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be read in pieces, each without those before it."""
    metadata, tensors = tiny_model("bert")
    del metadata["bert.attention.causal"]
    path = write_gguf(tmp_path / "x.gguf", metadata, tensors)
    monkeypatch.setattr(layers, "_WITHOUT_MEMORY", frozenset())
    with pytest.raises(FailedPrecondition, match="bert models keep nothing of a text, which this release"):
        async with loaded(path):
            pass


async def test_tokens_are_counted_of_what_a_model_does_and_of_nothing_else(tmp_path: Path) -> None:
    prompt = RunSpec(prompt="hello", demands=(Demand("generate", "generation"),))
    texts = RunSpec(inputs=("hello", "time"), demands=(Demand("embed", "embeddings"),))
    async with loaded(write_tiny_reader(tmp_path, "qwen3", LAST)) as engine:
        counted = answer(engine.token_reader(), texts).count
        assert counted == (await engine.embed(texts.inputs)).tokens_in
        with pytest.raises(InvalidArgument, match="generate: this model generates no text; name another model"):
            answer(engine.token_reader(), prompt)
    async with loaded(write_tiny_model(tmp_path, "llama")) as engine:
        assert answer(engine.token_reader(), prompt).count > 1
