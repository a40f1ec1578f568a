"""Pace and faults of the simulated engine; what it shares with other engines is in tests/contract."""

import asyncio
from collections.abc import Sequence

import pytest

from llorch.errors import FailedPrecondition, Reason
from llorch.finish_reason import FinishReason
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.sim.engine import SimEngine, SimShape
from worker_orcd.engines.sim.parameters import Fault, FaultKind, SimParameters
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep


class Log:
    """Steps as they came, with the loop's time."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, list[TokenStep]]] = []
        self.changed = asyncio.Event()

    def add(self, steps: Sequence[TokenStep]) -> None:
        self.steps.append((asyncio.get_running_loop().time(), list(steps)))
        self.changed.set()

    def tokens(self, attempt_id: str) -> int:
        return sum(len(step.entries) for _, steps in self.steps for step in steps if step.attempt_id == attempt_id)

    def ends(self) -> dict[str, TokenStep]:
        return {step.attempt_id: step for _, steps in self.steps for step in steps if step.end is not None}

    async def until_said(self, attempt_id: str, tokens: int) -> None:
        async with asyncio.timeout(10):
            while self.tokens(attempt_id) < tokens:
                self.changed.clear()
                await self.changed.wait()

    async def until_ended(self, *attempt_ids: str) -> None:
        async with asyncio.timeout(10):
            while not self.ends().keys() >= set(attempt_ids):
                self.changed.clear()
                await self.changed.wait()


async def until_hung(engine: SimEngine) -> None:
    async with asyncio.timeout(10):
        while not engine._hung:
            await asyncio.sleep(0)


async def start(parameters: SimParameters, slots: int = 32) -> tuple[SimEngine, Log]:
    engine, log = SimEngine(parameters, SimShape("m", slots=slots, context_per_slot=100_000)), Log()
    await engine.load()
    engine.deliver_to(log.add)
    return engine, log


def run(attempt_id: str, max_tokens: int | None = None, prompt: str = "hi") -> EngineRun:
    return EngineRun(attempt_id, RunSpec(prompt=prompt, max_tokens=max_tokens))


async def test_runs_keep_their_pace_and_share_their_steps() -> None:
    engine, log = await start(SimParameters(decode_tokens_per_s=250))
    began_at = asyncio.get_running_loop().time()
    for number in range(8):
        await engine.submit(run(f"a{number}", max_tokens=50))
    await log.until_ended(*(f"a{number}" for number in range(8)))
    took_s = asyncio.get_running_loop().time() - began_at
    assert took_s >= 49 / 250
    assert len(log.steps) <= 60, "one callback per step for all runs, not one per run"
    await engine.close()


async def test_prompts_are_evaluated_one_after_the_other() -> None:
    engine, log = await start(SimParameters(prefill_tokens_per_s=1000))
    for name in ("a", "b"):
        await engine.submit(run(name, max_tokens=1, prompt="x" * 400))
    await log.until_ended("a", "b")
    ends = log.ends()
    assert ends["a"].end is not None
    assert ends["b"].end is not None
    assert ends["a"].end.prefill_ms >= 95
    assert ends["b"].end.prefill_ms >= 195, "also where a loop that is late ends both in one step"
    await engine.close()


async def test_without_cost_an_answer_comes_at_once() -> None:
    engine, log = await start(SimParameters(eos_after=1000))
    await engine.submit(run("a"))
    await log.until_ended("a")
    end = log.ends()["a"].end
    assert end is not None
    assert (end.tokens_out, end.choices[0].finish_reason) == (1000, FinishReason.EOS)
    await engine.close()


async def test_eos_can_be_ignored() -> None:
    engine, log = await start(SimParameters(eos_after=5))
    await engine.submit(EngineRun("a", RunSpec(prompt="hi", max_tokens=20, ignore_eos=True)))
    await log.until_ended("a")
    assert log.tokens("a") == 20
    await engine.close()


@pytest.mark.parametrize("marked", [True, False])
async def test_a_hung_engine_makes_no_step_and_takes_no_cancel(marked: bool) -> None:
    fault = Fault(FaultKind.HANG, at_token=3, marker="boom")
    engine, log = await start(SimParameters(decode_tokens_per_s=500, faults=(fault,)))
    await engine.submit(run("a", prompt="boom" if marked else "hi"))
    # A step that comes late brings many tokens at once: the other run must not end in the step that hangs.
    await engine.submit(run("b", max_tokens=2000 if marked else 20))
    if marked:
        await until_hung(engine)
        engine.cancel("a")
        engine.cancel("b")
        steps = engine.stats().steps
        await asyncio.sleep(0.05)  # the time of 25 steps, in which nothing may happen
        assert (log.tokens("a"), log.ends(), engine.stats().steps) == (3, {}, steps)
    else:
        await log.until_ended("b")
    await engine.close()


async def test_a_run_tells_its_prompt_at_its_start_and_what_it_made_before_it_failed() -> None:
    fault = Fault(FaultKind.FAIL_RUN, at_token=3)
    engine, log = await start(SimParameters(faults=(fault,)))
    await engine.submit(run("a", prompt="x" * 40))
    await log.until_ended("a")
    started = next(step for _, steps in log.steps for step in steps if step.started)
    end = log.ends()["a"].end
    assert end is not None
    assert end.failure is not None
    assert (started.tokens_in, started.cached_tokens, end.tokens_in, end.tokens_out) == (10, 0, 10, 3)
    await engine.close()


async def test_a_slow_step_delays_what_follows_once() -> None:
    fault = Fault(FaultKind.SLOW, at_token=2, delay_s=0.2)
    engine, log = await start(SimParameters(decode_tokens_per_s=1000, faults=(fault,)))
    began_at = asyncio.get_running_loop().time()
    await engine.submit(run("a", max_tokens=5))
    await log.until_ended("a")
    assert 0.2 <= asyncio.get_running_loop().time() - began_at < 0.5
    assert log.tokens("a") == 5
    await engine.close()


async def test_a_rehearsal_costs_nothing_and_meets_no_fault() -> None:
    costs = SimParameters(decode_tokens_per_s=1, faults=(Fault(FaultKind.HANG), Fault(FaultKind.REFUSE)))
    engine, log = await start(costs)
    await engine.submit(EngineRun("a", RunSpec(prompt="hi", max_tokens=50), rehearsal=True))
    await log.until_ended("a")
    with pytest.raises(FailedPrecondition):
        await engine.submit(run("b"))
    await engine.close()


async def test_a_load_fails_with_the_reason_that_was_given() -> None:
    engine = SimEngine(SimParameters(fail_load="out of memory"), SimShape("m", 1, 256))
    with pytest.raises(FailedPrecondition, match="out of memory") as refused:
        await engine.load()
    assert refused.value.reason is Reason.MODEL_LOAD_FAILED
