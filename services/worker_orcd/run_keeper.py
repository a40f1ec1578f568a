"""Runs, and the engine that works on them: the only place that changes either."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from llorch.clock import Clock
from llorch.errors import Reason, Unavailable
from llorch.finish_reason import FinishReason
from worker_orcd.engines.protocol import Engine, EngineRun
from worker_orcd.log_entry import LogEntry, RunEnd
from worker_orcd.reading_runs import ReadingRuns
from worker_orcd.run_spec import RunSpec
from worker_orcd.run_table import CancelOutcome, Run, RunTable
from worker_orcd.task_attempt import NOTHING, Keepsake
from worker_orcd.token_rate import TokenRate
from worker_orcd.token_step import TokenStep
from worker_orcd.validation import check_run

SWEEP_S = 1.0


class RunWatcher(Protocol):
    def on_runs(self, runs: Sequence[Run]) -> None:
        """These runs have something new. Must not block."""
        ...


class RunKeeper:
    """Takes runs, hands them to the engine, and tells the watchers what came of them."""

    def __init__(self, engine: Engine, table: RunTable, clock: Clock) -> None:
        self.engine = engine
        self.table = table
        self._watchers: list[RunWatcher] = []
        self._submitting: dict[str, asyncio.Future[None]] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._draining = False
        self._idle = asyncio.Event()
        """Set when a drain is done."""
        self._rate = TokenRate(clock)
        self.finished: Counter[str] = Counter()
        """How the choices of runs ended, in lower case: a finish reason, "failed", "embedded" or "ranked"."""
        engine.deliver_to(self.on_steps)
        self._readings = ReadingRuns(engine, self.on_steps)

    @property
    def slots_free(self) -> int:
        return max(0, self.engine.info().slots - self.table.unfinished)

    @property
    def tokens_per_second(self) -> float:
        """Of the last second, all runs together; 0 where none runs."""
        return self._rate.per_second

    @property
    def reading(self) -> int:
        """Runs that read texts now, for vectors or scores; the engine does not count them among those in its slots."""
        return self._readings.running

    @property
    def decoding(self) -> int:
        """Runs that wait for steps of the engine: for as long as there are any, it makes steps."""
        return max(0, self.table.unfinished - self._readings.running)

    def watch(self, watcher: RunWatcher) -> None:
        self._watchers.append(watcher)

    def unwatch(self, watcher: RunWatcher) -> None:
        self._watchers.remove(watcher)

    async def start(
        self,
        attempt_id: str,
        fingerprint: bytes,
        spec: RunSpec,
        *,
        kept: Keepsake = NOTHING,
        prefix: Sequence[LogEntry] = (),
        private: bool = False,
        rehearsal: bool = False,
        session: str = "",
    ) -> Run:
        """Starts a run; the same start again is the same run. Raises `LlorchError` if it can't run here."""
        if self._draining:
            raise Unavailable(Reason.DRAINING, "this worker is shutting down")
        same = self.table.find_same(attempt_id, fingerprint)
        if same is not None:
            if attempt_id in self._submitting:
                await asyncio.shield(self._submitting[attempt_id])
            return same
        check_run(spec, prefix, self.engine.info().capabilities)
        run = self.table.admit(attempt_id, fingerprint, kept=kept, prefix=prefix, private=private)
        await self._submit(run, EngineRun(attempt_id, spec, tuple(prefix), rehearsal, session))
        if spec.remaining_ms is not None and run.end is None:
            self._deadlines[attempt_id] = asyncio.get_running_loop().call_later(
                spec.remaining_ms / 1000, self._end, attempt_id, FinishReason.DEADLINE
            )
        return run

    def cancel(self, attempt_id: str) -> CancelOutcome:
        outcome = self.table.cancel(attempt_id)
        if outcome is CancelOutcome.CANCELLED:
            self._end(attempt_id)
        return outcome

    def release(self, attempt_id: str) -> None:
        if self.table.release(attempt_id) is not None:
            self._end(attempt_id)

    def on_steps(self, steps: Sequence[TokenStep]) -> None:
        """The engine's callback, on the event loop's thread."""
        changed = []
        for step in steps:
            if step.end is not None:
                self.finished.update(_ways_to_end(step.end))
            run = self.table.apply(step)
            if run is not None:
                changed.append(run)
            if step.end is not None and (deadline := self._deadlines.pop(step.attempt_id, None)):
                deadline.cancel()
        self._note_rate()
        for watcher in self._watchers:
            watcher.on_runs(changed)
        if self._draining and not self.table.unfinished:
            self._idle.set()

    async def sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for run in self.table.sweep():
                self._end(run.attempt_id)

    async def drain(self) -> None:
        """Takes nothing new, cancels what runs, and waits until the engine let go of it."""
        self._draining = True
        for run in self.table.unfinished_runs():
            self.cancel(run.attempt_id)
        if self.table.unfinished:
            await self._idle.wait()

    def _note_rate(self) -> None:
        tokens = self.engine.stats().tokens_generated
        if self.decoding:
            self._rate.observe(tokens)
        else:
            self._rate.rest(tokens)

    def _end(self, attempt_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        self.engine.cancel(attempt_id, reason)
        self._readings.cancel(attempt_id, reason)

    async def _submit(self, run: Run, engine_run: EngineRun) -> None:
        """The same start may come again meanwhile, and a cancel too: the first waits, the second is kept."""
        submission = asyncio.get_running_loop().create_future()
        self._submitting[run.attempt_id] = submission
        try:
            if engine_run.spec.generates:
                await self.engine.submit(engine_run)
            else:
                self._readings.start(engine_run)
        except BaseException:
            self.table.withdraw(run)
            submission.set_exception(
                Unavailable(Reason.WORKER_NOT_READY, f"attempt {run.attempt_id} was not taken; start it again")
            )
            submission.exception()  # marks it as retrieved: perhaps no task waits for it
            raise
        else:
            submission.set_result(None)
        finally:
            del self._submitting[run.attempt_id]
        if run.cancelling:
            self._end(run.attempt_id)


def _ways_to_end(end: RunEnd) -> list[str]:
    if end.failure is not None:
        return ["failed"]
    if end.scores:
        return ["ranked"]
    return [choice.finish_reason.lower() for choice in end.choices] or ["embedded"]
