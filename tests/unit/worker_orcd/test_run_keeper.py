import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, Reason, Unavailable
from llorch.finish_reason import FinishReason
from support.manual_clock import ManualClock
from worker_orcd.engine_info import Capabilities, EngineInfo, EngineStats
from worker_orcd.engines.protocol import Embedded, EngineRun, Ranked, StepCallback
from worker_orcd.log_entry import ChoiceEnd, RunEnd
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.run_spec import RunSpec
from worker_orcd.run_table import RunTable
from worker_orcd.token_reader import TokenReader
from worker_orcd.token_step import TokenStep

SPEC = RunSpec(prompt="hi")


@dataclass
class SlowEngine:
    """Takes a run when the test lets it, and ends one when it is cancelled."""

    admit: asyncio.Event = field(default_factory=asyncio.Event)
    embedding: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: Exception | None = None
    submitted: list[str] = field(default_factory=list)
    cancelled: list[tuple[str, FinishReason]] = field(default_factory=list)
    on_steps: StepCallback | None = None

    async def load(self) -> None: ...

    def load_progress(self) -> float | None: ...

    def info(self) -> EngineInfo:
        can = Capabilities(embeddings=True, rerank=True)
        return EngineInfo("slow", "1", "m", context_per_slot=100, slots=2, max_admitted=2, capabilities=can)

    def deliver_to(self, on_steps: StepCallback) -> None:
        self.on_steps = on_steps

    async def watch(self) -> None: ...

    async def submit(self, run: EngineRun) -> None:
        await self.admit.wait()
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append(run.attempt_id)

    def cancel(self, attempt_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        self.cancelled.append((attempt_id, reason))
        if attempt_id in self.submitted and self.on_steps is not None:
            end = RunEnd(choices=(ChoiceEnd(0, reason, 0),))
            asyncio.get_running_loop().call_soon(self.on_steps, [TokenStep(attempt_id, end=end)])

    async def embed(self, texts: Sequence[str]) -> Embedded:
        await self.embedding.wait()
        if self.refusal is not None:
            raise self.refusal
        return Embedded([[1.0] for _ in texts], len(texts))

    async def rank(self, query: str, documents: Sequence[str]) -> Ranked:
        await self.embedding.wait()
        return Ranked([float(len(document)) for document in documents], len(documents))

    def token_reader(self) -> TokenReader:
        raise NotImplementedError

    def stats(self) -> EngineStats:
        return EngineStats()

    async def save_sessions(self, keep_s: Mapping[str, float], within_s: float) -> None: ...

    async def close(self) -> None: ...


def keeper_of(engine: SlowEngine) -> RunKeeper:
    clock = ManualClock()
    return RunKeeper(engine, RunTable(clock, 2), clock)


async def turn() -> None:
    """Lets every task that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_start_that_comes_again_meanwhile_waits_for_the_first(engine: SlowEngine) -> None:
    keeper = keeper_of(engine)
    first = asyncio.ensure_future(keeper.start("a", b"x", SPEC))
    await turn()
    again = asyncio.ensure_future(keeper.start("a", b"x", SPEC))
    await turn()
    assert not again.done()
    engine.admit.set()
    assert await first is await again
    assert engine.submitted == ["a"]


async def test_a_start_that_is_refused_is_refused_to_all_who_wait(engine: SlowEngine) -> None:
    engine.refusal = InvalidArgument(Reason.PROMPT_TOO_LONG, "too long")
    keeper = keeper_of(engine)
    first = asyncio.ensure_future(keeper.start("a", b"x", SPEC))
    await turn()
    again = asyncio.ensure_future(keeper.start("a", b"x", SPEC))
    await turn()
    engine.admit.set()
    with pytest.raises(InvalidArgument):
        await first
    with pytest.raises(Unavailable):
        await again
    assert (len(keeper.table), keeper.slots_free) == (0, 2)


async def test_a_caller_that_leaves_before_its_run_is_taken_leaves_no_run(engine: SlowEngine) -> None:
    keeper = keeper_of(engine)
    start = asyncio.ensure_future(keeper.start("a", b"x", SPEC))
    await turn()
    start.cancel()
    await asyncio.wait({start})
    assert (len(keeper.table), keeper.slots_free) == (0, 2)


async def test_a_cancel_before_the_engine_has_taken_the_run_is_not_lost(engine: SlowEngine) -> None:
    keeper = keeper_of(engine)
    start = asyncio.ensure_future(keeper.start("a", b"x", SPEC))
    await turn()
    keeper.cancel("a")
    engine.admit.set()
    run = await start
    await turn()
    assert run.end is not None
    assert run.end.choices[0].finish_reason is FinishReason.CANCELLED


async def test_a_release_before_the_engine_has_taken_the_run_frees_its_slot(engine: SlowEngine) -> None:
    keeper = keeper_of(engine)
    start = asyncio.ensure_future(keeper.start("a", b"x", SPEC))
    await turn()
    keeper.release("a")
    engine.admit.set()
    await start
    await turn()
    assert (len(keeper.table), keeper.slots_free) == (0, 2)
    with pytest.raises(FailedPrecondition):
        await keeper.start("a", b"x", SPEC)


async def test_a_drain_cancels_what_runs_and_takes_nothing_new(engine: SlowEngine) -> None:
    engine.admit.set()
    keeper = keeper_of(engine)
    run = await keeper.start("a", b"x", SPEC)
    async with asyncio.timeout(5):
        await keeper.drain()
    assert run.end is not None
    with pytest.raises(Unavailable) as refused:
        await keeper.start("b", b"x", SPEC)
    assert refused.value.reason is Reason.DRAINING


@pytest.fixture
async def engine() -> SlowEngine:
    return SlowEngine()


EMBED = RunSpec(inputs=("x", "y"))


async def test_embeddings_are_the_end_of_a_run_that_holds_a_slot(engine: SlowEngine) -> None:
    keeper = keeper_of(engine)
    run = await keeper.start("a", b"x", EMBED)
    assert (run.started_after_ms, run.end, keeper.slots_free) == (0, None, 1)
    engine.embedding.set()
    await turn()
    assert run.end == RunEnd(tokens_in=2, prefill_ms=run.end.prefill_ms if run.end else 0, embeddings=((1.0,), (1.0,)))
    assert keeper.slots_free == 2


async def test_scores_are_the_end_of_a_run_and_are_counted_as_such(engine: SlowEngine) -> None:
    keeper = keeper_of(engine)
    run = await keeper.start("a", b"x", RunSpec(query="q", documents=("x", "yy")))
    assert (keeper.reading, run.end) == (1, None)
    engine.embedding.set()
    await turn()
    assert run.end is not None
    assert (run.end.scores, run.end.tokens_in, run.end.failure) == ((1.0, 2.0), 2, None)
    assert keeper.finished == {"ranked": 1}


@pytest.mark.req("POOL-2004")
async def test_embeddings_wait_for_no_decode_step(engine: SlowEngine) -> None:
    """An engine that makes none while it computes them is not stuck."""
    engine.admit.set()
    keeper = keeper_of(engine)
    await keeper.start("a", b"x", EMBED)
    assert (keeper.reading, keeper.decoding) == (1, 0)
    await keeper.start("b", b"y", SPEC)
    assert (keeper.reading, keeper.decoding) == (1, 1)
    keeper.cancel("a")
    await turn()
    assert (keeper.reading, keeper.decoding) == (0, 1)


@pytest.mark.parametrize("turns", [0, 1])
async def test_embeddings_are_cancelled_at_any_time(engine: SlowEngine, turns: int) -> None:
    keeper = keeper_of(engine)
    run = await keeper.start("a", b"x", EMBED)
    for _ in range(turns):
        await asyncio.sleep(0)
    keeper.cancel("a")
    await turn()
    assert run.end == RunEnd(choices=(ChoiceEnd(0, FinishReason.CANCELLED, 0),))


async def test_embeddings_end_at_their_deadline(engine: SlowEngine) -> None:
    run = await keeper_of(engine).start("a", b"x", replace(EMBED, remaining_ms=1))
    async with asyncio.timeout(5):
        while run.end is None:
            await asyncio.sleep(0.001)
    assert run.end.choices[0].finish_reason is FinishReason.DEADLINE


async def test_embeddings_that_fail_say_why(engine: SlowEngine) -> None:
    engine.embedding.set()
    for error, reason, message in (
        (InvalidArgument(Reason.PROMPT_TOO_LONG, "too long"), Reason.PROMPT_TOO_LONG, "too long"),
        (RuntimeError("secret"), Reason.ENGINE_FAILED, "its log says how"),
    ):
        engine.refusal = error
        run = await keeper_of(engine).start("a", b"x", EMBED)
        await turn()
        assert run.end is not None
        assert run.end.failure is not None
        assert (run.end.failure.reason, message in run.end.failure.message) == (reason, True)


async def test_a_drain_cancels_embeddings(engine: SlowEngine) -> None:
    keeper = keeper_of(engine)
    run = await keeper.start("a", b"x", EMBED)
    await keeper.drain()
    assert run.end is not None
