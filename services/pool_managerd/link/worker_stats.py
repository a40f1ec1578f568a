"""Asks the workers for their stats, so that heartbeats can report them."""

import asyncio
import itertools
from collections.abc import Callable, Iterable

import grpc

from llama_orch.v2.worker_service_pb2 import GetStatsRequest
from llama_orch.v2.worker_service_pb2_grpc import WorkerServiceStub
from llorch.errors import LlorchError
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel
from llorch.worker_state import WorkerState
from pool_managerd.workers.stall import EngineSigns
from pool_managerd.workers.status import WorkerStatus

EVERY_S = 0.5
_IDLE_EVERY = 2
"""Of so many turns, a worker that does nothing is asked in one: what it costs to be idle has a bar (`make bench`)."""
_ANSWER_WITHIN_S = 1.0

_log = get_logger(__name__)


class WorkerStats:
    """Asks every ready worker, all at once, and idle ones more seldom. New stats do not trigger a report, but where
    tokens begin or cease to come: the next heartbeat has the others.

    `note` is called with the stats of each worker, `note_silence` for each that does not answer.
    """

    def __init__(
        self,
        statuses: Callable[[], Iterable[WorkerStatus]],
        note: Callable[[str, bytes, EngineSigns], None],
        note_silence: Callable[[str], None],
    ) -> None:
        self._statuses = statuses
        self._note = note
        self._note_silence = note_silence
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._idle: set[str] = set()

    async def run(self) -> None:
        try:
            for turn in itertools.count():
                await asyncio.sleep(EVERY_S)
                await self._ask_all(with_idle=turn % _IDLE_EVERY == 0)
        finally:
            await self.close()

    async def _ask_all(self, *, with_idle: bool) -> None:
        ready = {
            status.spec.worker_id: status
            for status in self._statuses()
            if status.state is WorkerState.READY and status.address
        }
        for worker_id in self._channels.keys() - ready.keys():
            await self._channels.pop(worker_id).close()
        self._idle &= ready.keys()
        due = (status for worker_id, status in ready.items() if with_idle or worker_id not in self._idle)
        await asyncio.gather(*map(self._ask, due))

    async def close(self) -> None:
        while self._channels:
            await self._channels.popitem()[1].close()

    async def _ask(self, status: WorkerStatus) -> None:
        """A worker that does not answer keeps the stats that it had."""
        worker_id = status.spec.worker_id
        channel = self._channels.get(worker_id)
        if channel is None:
            channel = self._channels[worker_id] = open_channel(status.address, token=status.access_token)
        try:
            answer = await call(WorkerServiceStub(channel).GetStats, GetStatsRequest(), timeout_s=_ANSWER_WITHIN_S)
        except LlorchError as error:
            _log.debug("worker_did_not_answer_stats", worker_id=worker_id, reason=error.reason)
            self._note_silence(worker_id)
            return
        stats = answer.stats
        (self._idle.discard if stats.slots_busy else self._idle.add)(worker_id)
        work_done = stats.steps + stats.tokens_prefilled + stats.tokens_generated
        signs = EngineSigns(stats.runs_decoding, work_done, makes_tokens=stats.tokens_per_second > 0)
        self._note(worker_id, stats.SerializeToString(deterministic=True), signs)
