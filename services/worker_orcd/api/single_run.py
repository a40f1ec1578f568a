"""One run for the call that started it."""

import asyncio
from collections.abc import Sequence

from llama_orch.v2 import run_pb2
from worker_orcd.convert.runs import fill_delta
from worker_orcd.run_table import Run


class SingleRun:
    """Watches one run; `next_delta` waits until there is more of it."""

    def __init__(self, attempt_id: str) -> None:
        self._attempt_id = attempt_id
        self._run: Run | None = None
        self._wake = asyncio.Event()
        self._next_seq = 0
        self._start_sent = False

    def on_runs(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if run.attempt_id == self._attempt_id:
                self._run = run
                self._wake.set()

    async def next_delta(self) -> run_pb2.RunDelta:
        """What is new; the delta with an end is the last one."""
        await self._wake.wait()
        self._wake.clear()
        delta = run_pb2.RunDelta(attempt_id=self._attempt_id)
        if self._run is not None:
            with_start = not self._start_sent and self._run.started_after_ms is not None
            fill_delta(delta, self._run, self._next_seq, with_start=with_start)
            self._next_seq = len(self._run.log)
            self._start_sent = self._start_sent or with_start
        return delta
