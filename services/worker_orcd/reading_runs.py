"""Runs that read texts, for vectors or scores: each is a call of the engine, told as a run's start and end."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from llorch.errors import Internal, LlorchError, Reason
from llorch.finish_reason import FinishReason
from llorch.logs import get_logger
from worker_orcd.engines.protocol import Engine, EngineRun
from worker_orcd.log_entry import ChoiceEnd, RunEnd, RunFailure
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

_log = get_logger("worker-orcd")


class ReadingRuns:
    """`on_steps` is called for every run, on the event loop: at once for its start, and later for its end."""

    def __init__(self, engine: Engine, on_steps: Callable[[Sequence[TokenStep]], None]) -> None:
        self._engine = engine
        self._on_steps = on_steps
        self._running: dict[str, asyncio.Task[RunEnd]] = {}
        self._why_ended: dict[str, FinishReason] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self, run: EngineRun) -> None:
        task = asyncio.create_task(self._read(run.spec), name=f"read {run.attempt_id}")
        self._running[run.attempt_id] = task
        task.add_done_callback(lambda _: self._tell_end(run.attempt_id, task))
        self._on_steps([TokenStep(run.attempt_id, started=True)])

    def cancel(self, attempt_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Its end follows at once; what the engine computes at the moment it finishes. Unknown ids pass."""
        if task := self._running.get(attempt_id):
            self._why_ended.setdefault(attempt_id, reason)
            task.cancel()

    async def _read(self, spec: RunSpec) -> RunEnd:
        began_at = asyncio.get_running_loop().time()
        if spec.documents:
            ranked = await self._engine.rank(spec.query, spec.documents)
            end = RunEnd(tokens_in=ranked.tokens_in, scores=tuple(ranked.scores))
        else:
            embedded = await self._engine.embed(spec.inputs)
            vectors = tuple(tuple(vector) for vector in embedded.vectors)
            end = RunEnd(tokens_in=embedded.tokens_in, embeddings=vectors)
        return replace(end, prefill_ms=round((asyncio.get_running_loop().time() - began_at) * 1000))

    def _tell_end(self, attempt_id: str, task: "asyncio.Task[RunEnd]") -> None:
        del self._running[attempt_id]
        reason = self._why_ended.pop(attempt_id, FinishReason.CANCELLED)
        if task.cancelled():
            end = RunEnd(choices=(ChoiceEnd(0, reason, 0),))
        elif (error := task.exception()) is not None:
            end = RunEnd(failure=_failure(error))
        else:
            end = task.result()
        self._on_steps([TokenStep(attempt_id, end=end)])


def _failure(error: BaseException) -> RunFailure:
    if not isinstance(error, LlorchError):
        _log.error("reading_failed", exc_info=error)
        error = Internal(Reason.ENGINE_FAILED, "the engine failed; its log says how")
    return RunFailure(error.reason, error.message, error.field)
