"""Before a worker reports that it is ready, it proves that it can decode and cancel, or that it can read texts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from llorch.clock import Clock
from llorch.errors import FailedPrecondition, Internal, Reason
from llorch.finish_reason import FinishReason
from llorch.options.sampling import Sampling
from worker_orcd.engines.protocol import Engine
from worker_orcd.log_entry import RunEnd
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.run_spec import RunSpec
from worker_orcd.run_table import Run

TIMEOUT_S = 120.0
DECODED_TOKENS = 8
_TEXT = "one"
_PROMPT = "One, two, three, four,"


@dataclass(frozen=True, slots=True)
class SelfTestReport:
    first_token_ms: int
    decode_ms: int
    cancel_ms: int


class _Rehearsal:
    """Watches one run for its first output and for its end."""

    def __init__(self, attempt_id: str) -> None:
        self._attempt_id = attempt_id
        self.first_output = asyncio.Event()
        self.ended = asyncio.Event()

    def on_runs(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if run.attempt_id == self._attempt_id:
                if run.log:
                    self.first_output.set()
                if run.end is not None:
                    self.first_output.set()
                    self.ended.set()


async def self_test(keeper: RunKeeper, clock: Clock) -> SelfTestReport:
    """Decodes a few tokens, then cancels a run in the middle; an engine that generates nothing reads a text. Raises if
    it does any of it wrong.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if not keeper.engine.info().capabilities.generation:
                return await _read(keeper.engine, clock)
            decoded, _ = await _rehearse(keeper, clock, "self-test-decode", cancel=False)
            cancelled, cancel_ms = await _rehearse(keeper, clock, "self-test-cancel", cancel=True)
    except TimeoutError:
        raise FailedPrecondition(
            Reason.ENGINE_FAILED, f"the engine loaded the model, but did not answer within {TIMEOUT_S:g} s"
        ) from None
    for end in (decoded, cancelled):
        if end.failure is not None:
            raise FailedPrecondition(Reason.ENGINE_FAILED, f"the engine failed its self-test: {end.failure.message}")
    if cancelled.choices[0].finish_reason not in (FinishReason.CANCELLED, FinishReason.EOS):
        raise FailedPrecondition(Reason.ENGINE_FAILED, "the engine did not cancel a run in its self-test")
    return SelfTestReport(decoded.prefill_ms, decoded.decode_ms, cancel_ms)


async def _read(engine: Engine, clock: Clock) -> SelfTestReport:
    began_at = clock.monotonic()
    if engine.info().capabilities.embeddings:
        await engine.embed([_TEXT])
    else:
        await engine.rank(_TEXT, [_TEXT])
    return SelfTestReport(round((clock.monotonic() - began_at) * 1000), 0, 0)


async def _rehearse(keeper: RunKeeper, clock: Clock, attempt_id: str, *, cancel: bool) -> tuple[RunEnd, int]:
    """One run to its end, and how long that took after it was cancelled, in ms."""
    watcher = _Rehearsal(attempt_id)
    keeper.watch(watcher)
    try:
        spec = RunSpec(
            prompt=_PROMPT,
            max_tokens=None if cancel else DECODED_TOKENS,
            sampling=Sampling(temperature=0.0),
            ignore_eos=cancel,
        )
        run = await keeper.start(attempt_id, b"", spec, private=True, rehearsal=True)
        cancelled_at = clock.monotonic()
        if cancel:
            await watcher.first_output.wait()
            cancelled_at = clock.monotonic()
            keeper.cancel(attempt_id)
        await watcher.ended.wait()
        if run.end is None:
            raise Internal(Reason.INTERNAL, "a run ended without an end")
        return run.end, round((clock.monotonic() - cancelled_at) * 1000)
    finally:
        keeper.unwatch(watcher)
        keeper.release(attempt_id)
