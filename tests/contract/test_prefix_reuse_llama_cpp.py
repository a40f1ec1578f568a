"""What the llama.cpp engine keeps of one run for the next, with a real model."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from llorch.device_kind import DeviceKind
from llorch.finish_reason import FinishReason
from llorch.options.sampling import Sampling
from support.real_model import smollm2
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.log_entry import LogEntry, RunEnd
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

pytestmark = pytest.mark.native

WAIT_S = 60.0
GREEDY = Sampling(temperature=0.0)
SPEC = RunSpec(prompt="", seed=3, max_tokens=6, sampling=GREEDY, ignore_eos=True)


def text(word: str, count: int = 50) -> str:
    """The model has no doubt how it goes on: other roundings, with other numbers of tokens at once, change nothing."""
    return f"Counting {word}s: " + "".join(f"{number}, " for number in range(1, count + 1)).rstrip()


class Answers:
    def __init__(self, engine: LlamaCppEngine) -> None:
        self.engine = engine
        self._logs: dict[str, list[LogEntry]] = {}
        self._ends: dict[str, asyncio.Future[RunEnd]] = {}
        self.started = asyncio.Event()
        engine.deliver_to(self._on_steps)

    async def submit(self, attempt_id: str, spec: RunSpec) -> None:
        self._logs[attempt_id] = []
        self._ends[attempt_id] = asyncio.get_running_loop().create_future()
        self.started.clear()
        await self.engine.submit(EngineRun(attempt_id, spec))

    async def end(self, attempt_id: str) -> tuple[list[int], RunEnd]:
        async with asyncio.timeout(WAIT_S):
            end = await self._ends[attempt_id]
        return [token_id for entry in self._logs[attempt_id] for token_id in entry.token_ids], end

    async def evaluates(self, attempt_id: str) -> None:
        """Returns in the middle of a piece of its prompt."""
        thread = self.engine._thread
        assert thread is not None
        async with asyncio.timeout(WAIT_S):
            while thread._abort_switch is None or thread._abort_switch._watched != attempt_id:
                await asyncio.sleep(0)

    async def ask(self, attempt_id: str, prompt: str) -> tuple[list[int], RunEnd]:
        await self.submit(attempt_id, replace(SPEC, prompt=prompt))
        return await self.end(attempt_id)

    def _on_steps(self, steps: Sequence[TokenStep]) -> None:
        for step in steps:
            self._logs[step.attempt_id] += step.entries
            if step.started:
                self.started.set()
            if step.end is not None:
                self._ends[step.attempt_id].set_result(step.end)


def shape(*, slots: int, host_cache_bytes: int = 0) -> LlamaCppShape:
    return LlamaCppShape(
        model_path=smollm2(),
        model="m",
        devices=DeviceSet(DeviceKind.CPU, ("cpu",)),
        slots=slots,
        context_per_slot=2048,
        threads=1,
        host_cache_bytes=host_cache_bytes,
    )


async def open_answers(shape: LlamaCppShape) -> AsyncIterator[Answers]:
    engine = LlamaCppEngine(shape)
    await engine.load()
    yield Answers(engine)
    await engine.close()


@pytest.fixture
async def one_slot() -> AsyncIterator[Answers]:
    async for answers in open_answers(shape(slots=1)):
        yield answers


@pytest.fixture
async def with_host_cache() -> AsyncIterator[Answers]:
    async for answers in open_answers(shape(slots=1, host_cache_bytes=64 * 1024 * 1024)):
        yield answers


@pytest.fixture
async def two_slots() -> AsyncIterator[Answers]:
    async for answers in open_answers(shape(slots=2)):
        yield answers


@pytest.mark.req("WORK-3004")
async def test_the_next_turn_evaluates_only_what_is_new(one_slot: Answers) -> None:
    first, end = await one_slot.ask("a", text("apple"))
    assert end.cached_tokens == 0
    prefilled = one_slot.engine.stats().tokens_prefilled
    again, end_again = await one_slot.ask("b", text("apple") + " and a pear")
    assert end_again.cached_tokens >= 140
    new = one_slot.engine.stats().tokens_prefilled - prefilled
    assert end_again.tokens_in == end_again.cached_tokens + new
    fresh, _ = await one_slot.ask("c", text("pear"))
    repeated, end_repeated = await one_slot.ask("d", text("apple"))
    assert (repeated, end_repeated.cached_tokens) == (first, 0)
    assert len({tuple(first), tuple(again), tuple(fresh)}) > 1


async def test_the_same_prompt_again_says_the_same_from_one_token(one_slot: Answers) -> None:
    first, _ = await one_slot.ask("a", text("apple"))
    again, end = await one_slot.ask("b", text("apple"))
    assert end.cached_tokens == end.tokens_in - 1
    assert again == first


@pytest.mark.req("WORK-3004")
async def test_a_conversation_that_had_to_leave_comes_back_from_the_host(with_host_cache: Answers) -> None:
    first, _ = await with_host_cache.ask("a", text("apple"))
    await with_host_cache.ask("b", text("pear"))
    assert with_host_cache.engine.stats().host_cache_bytes > 0
    again, end = await with_host_cache.ask("c", text("apple"))
    assert end.cached_tokens == end.tokens_in - 1
    assert again == first
    pear, end_pear = await with_host_cache.ask("d", text("pear"))
    assert end_pear.cached_tokens == end_pear.tokens_in - 1
    assert pear


async def test_a_common_beginning_is_copied_from_a_run_that_goes_on(two_slots: Answers) -> None:
    alone, _ = await two_slots.ask("alone", text("apple", 52))
    await two_slots.ask("other", text("pear"))
    await two_slots.submit("a", replace(SPEC, prompt=text("apple"), max_tokens=60))
    await two_slots.started.wait()
    beside, end = await two_slots.ask("b", text("apple", 52))
    assert beside == alone
    assert end.cached_tokens >= 140
    _, end_a = await two_slots.end("a")
    assert end_a.tokens_out == 60


async def test_cancel_does_not_wait_for_a_long_piece_of_a_prompt(one_slot: Answers) -> None:
    await one_slot.submit("a", replace(SPEC, prompt=text("apple", 420)))
    await one_slot.evaluates("a")
    one_slot.engine.cancel("a")
    tokens, end = await one_slot.end("a")
    assert (tokens, end.choices[0].finish_reason) == ([], FinishReason.CANCELLED)
    assert one_slot.engine.stats().tokens_prefilled == 0, "the first piece was not evaluated to its end"
    said, _ = await one_slot.ask("b", text("apple"))
    await one_slot.ask("c", text("pear"))
    fresh, end_fresh = await one_slot.ask("d", text("apple"))
    assert (fresh, end_fresh.cached_tokens) == (said, 0)
