"""One engine for many tests, used from plain functions: loading it takes longer than what they do with it."""

import asyncio
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from llorch.finish_reason import FinishReason
from worker_orcd.engines.protocol import Engine, EngineRun
from worker_orcd.log_entry import LogEntry, RunEnd
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

WAIT_S = 60.0


class Answer:
    """What came of one run."""

    def __init__(self) -> None:
        self.log: list[LogEntry] = []
        self.end: RunEnd | None = None
        self.ended = asyncio.Event()

    @property
    def text(self) -> str:
        return "".join(entry.text for entry in self.log)

    @property
    def token_ids(self) -> list[int]:
        return [token_id for entry in self.log for token_id in entry.token_ids]

    @property
    def finish(self) -> FinishReason:
        assert self.end is not None
        return self.end.choices[0].finish_reason


class EngineRuns:
    """Loads the engine on entry and closes it on exit, in a loop of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loop = asyncio.Runner()
        self._answers: dict[str, Answer] = {}
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        self._loop.run(self.engine.load())
        self.engine.deliver_to(self._on_steps)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self.engine.close())
        self._loop.close()

    def run(self, spec: RunSpec, prefix: Sequence[LogEntry] = ()) -> Answer:
        return self.run_all([spec], prefix)[0]

    def run_all(self, specs: Sequence[RunSpec], prefix: Sequence[LogEntry] = ()) -> list[Answer]:
        """All at once; returns when the last one has ended."""
        return self._loop.run(self._run_all(specs, tuple(prefix)))

    async def _run_all(self, specs: Sequence[RunSpec], prefix: tuple[LogEntry, ...]) -> list[Answer]:
        answers = [await self._submit(spec, prefix) for spec in specs]
        async with asyncio.timeout(WAIT_S):
            for answer in answers:
                await answer.ended.wait()
        return answers

    async def _submit(self, spec: RunSpec, prefix: tuple[LogEntry, ...]) -> Answer:
        attempt_id = f"run-{next(self._numbers)}"
        answer = self._answers[attempt_id] = Answer()
        await self.engine.submit(EngineRun(attempt_id, spec, prefix))
        return answer

    def _on_steps(self, steps: Sequence[TokenStep]) -> None:
        for step in steps:
            answer = self._answers[step.attempt_id]
            answer.log += step.entries
            answer.end = step.end
            if step.end is not None:
                answer.ended.set()
