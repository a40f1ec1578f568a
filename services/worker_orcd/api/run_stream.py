"""The frames of runs for one reader: one per step, made of what changed since the last one.

While a frame is being written, changes gather; a reader that lags gets them all in its next frame, so that
neither the engine nor any other reader ever waits for it.
"""

import asyncio
from collections.abc import Mapping, Sequence

import grpc

from llama_orch.v2 import run_pb2, worker_service_pb2
from llorch.errors import InvalidArgument, LlorchError, Reason
from llorch.rpc.slow_reader import write_with_deadline
from worker_orcd.convert.runs import add_delta
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.run_table import Run

SILENCE_S = 1.0
"""After this long without a change an empty frame shows that the worker is alive."""

WRITE_DEADLINE_S = 5.0

StreamContext = grpc.aio.ServicerContext[object, worker_service_pb2.StreamRunsResponse]


class RunStream:
    """The one stream of an orchestrator. `from_seq` is where it wants to read each attempt from."""

    def __init__(self, keeper: RunKeeper, from_seq: Mapping[str, int]) -> None:
        self._keeper = keeper
        self._next_seq: dict[str, int] = {}
        """Attempt → next entry to send, for the runs that this reader has got frames of."""
        self._started_sent: set[str] = set()
        self._changed: dict[str, Run] = {}
        self._unknown = [attempt_id for attempt_id in from_seq if not self._open(attempt_id, from_seq[attempt_id])]
        self._wake = asyncio.Event()
        self._end: LlorchError | None = None
        self._closing = False
        self.on_runs(list(keeper.table.shown()))

    def on_runs(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if not run.private:
                self._changed[run.attempt_id] = run
        if self._changed:
            self._wake.set()

    def supersede(self, error: LlorchError) -> None:
        """Another stream takes its place: this one ends with the error."""
        self._end = error
        self._wake.set()

    def close(self) -> None:
        """Nothing follows: ends as soon as everything is sent."""
        self._closing = True
        self._wake.set()

    async def write_to(self, context: StreamContext) -> None:
        """Until the stream is superseded or closed, or the reader goes away."""
        while not self._closing or self._changed:
            frame = self._next_frame()
            await write_with_deadline(context, worker_service_pb2.StreamRunsResponse(frame=frame), WRITE_DEADLINE_S)
            await self._wait_for_change()
            if self._end is not None:
                raise self._end

    async def _wait_for_change(self) -> None:
        if self._changed or self._closing or self._end is not None:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._wake.wait()
        except TimeoutError:
            return

    def _next_frame(self) -> run_pb2.StepFrame:
        frame = run_pb2.StepFrame(
            slots_free=self._keeper.slots_free,
            unknown_attempt_ids=self._unknown,
        )
        self._unknown = []
        changed, self._changed = self._changed, {}
        for run in changed.values():
            self._add(frame, run)
        return frame

    def _add(self, frame: run_pb2.StepFrame, run: Run) -> None:
        attempt_id = run.attempt_id
        with_start = run.started_after_ms is not None and attempt_id not in self._started_sent
        from_seq = self._next_seq.get(attempt_id, run.prefix_length)
        if from_seq == len(run.log) and run.end is None and not with_start:
            return
        add_delta(frame, run, from_seq, with_start=with_start)
        if run.end is not None:
            self._next_seq.pop(attempt_id, None)
            self._started_sent.discard(attempt_id)
            return
        self._next_seq[attempt_id] = len(run.log)
        if with_start:
            self._started_sent.add(attempt_id)

    def _open(self, attempt_id: str, from_seq: int) -> bool:
        run = self._keeper.table.get(attempt_id)
        if run is None or run.private or run.released:
            return False
        if from_seq > len(run.log):
            raise InvalidArgument(
                Reason.INVALID_CURSOR,
                f"from_seq of {attempt_id} is {from_seq}, but its log has {len(run.log)} entries",
            )
        self._next_seq[attempt_id] = from_seq
        return True
