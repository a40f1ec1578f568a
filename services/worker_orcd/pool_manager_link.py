"""What a worker reports to its pool manager, and how it notices that its pool manager is gone."""

import asyncio
from collections.abc import Callable

from llama_orch.v2 import pool_manager_service_pb2, pool_manager_service_pb2_grpc
from llorch.clock import Clock
from llorch.errors import DeadlineExceeded, LlorchError, Unavailable
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel
from llorch.rpc.reasons import reason_to_proto
from worker_orcd.convert.engine import to_engine_info
from worker_orcd.engine_info import EngineInfo

CALL_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 1.0
PULSE_S = 10.0
LOADING_PULSE_S = 2.0

_log = get_logger("worker-orcd")

Request = pool_manager_service_pb2.ReportWorkerReadyRequest


class PoolManagerLink:
    """Reports the state of this worker to the pool manager, again and again.

    Only a pool manager that takes the report counts as ours: another one that has the address now does not know this
    worker. Without ours for `orphan_grace_s` it counts as gone for good.
    """

    def __init__(self, address: str, token: str | None, worker_id: str, orphan_grace_s: float, clock: Clock) -> None:
        self._token = token
        self._worker_id = worker_id
        self._orphan_grace_s = orphan_grace_s
        self._clock = clock
        self._heard_at = clock.monotonic()
        self._address = address
        self._channel = open_channel(address, token=token)
        self._left_channels: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._refused = ""
        self._report = self._loading

    def _loading(self) -> Request:
        return Request(worker_id=self._worker_id, loading=True)

    def listens(self, own_address: str, load_progress: Callable[[], float | None]) -> None:
        """It can be called at `own_address` from now on, and loads."""

        def report() -> Request:
            return Request(worker_id=self._worker_id, address=own_address, loading=True, load_progress=load_progress())

        self._say(report)

    def is_ready(self, own_address: str, info: EngineInfo) -> None:
        request = Request(worker_id=self._worker_id, address=own_address, engine=to_engine_info(info))
        self._say(lambda: request)

    async def report_failure(self, error: LlorchError) -> None:
        """Tried once: the process ends with the same message on stderr, whether the report arrives or not."""
        request = Request(
            worker_id=self._worker_id,
            failure_reason=reason_to_proto(error.reason),
            failure_message=error.message,
        )
        try:
            await self._send(request)
        except LlorchError as unheard:
            _log.warning("failure_report_not_heard", reason=unheard.reason)

    def move_to(self, address: str) -> None:
        """The pool manager called, and is at this address now; the worker reports to it at once."""
        self._heard_at = self._clock.monotonic()
        if address != self._address:
            leaving = asyncio.ensure_future(self._channel.close(None))
            self._left_channels.add(leaving)
            leaving.add_done_callback(self._left_channels.discard)
            self._address, self._channel = address, open_channel(address, token=self._token)
        self._news.set()

    async def wait_orphaned(self) -> None:
        """Reports until the pool manager has not taken a report for the grace, and returns then."""
        retry_s = FIRST_RETRY_S
        while not self._is_orphan():
            self._news.clear()
            if await self._is_heard():
                retry_s, pause_s = FIRST_RETRY_S, self._pulse_s()
            else:
                pause_s, retry_s = retry_s, min(2 * retry_s, LONGEST_RETRY_S)
            await self._wait_news(pause_s)
        _log.warning("pool_manager_gone", grace_s=self._orphan_grace_s)

    async def close(self) -> None:
        await self._channel.close(None)
        await asyncio.gather(*self._left_channels)

    def _say(self, report: Callable[[], Request]) -> None:
        self._report = report
        self._news.set()

    def _is_orphan(self) -> bool:
        return self._clock.monotonic() - self._heard_at >= self._orphan_grace_s

    def _pulse_s(self) -> float:
        longest_s = LOADING_PULSE_S if self._report().loading else PULSE_S
        return min(longest_s, self._orphan_grace_s / 2)

    async def _wait_news(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError:
            return

    async def _is_heard(self) -> bool:
        try:
            await self._send(self._report())
        except (Unavailable, DeadlineExceeded):
            return False
        except LlorchError as error:
            self._say_once_that_it_is_refused(error)
            return False
        self._heard_at, self._refused = self._clock.monotonic(), ""
        return True

    def _say_once_that_it_is_refused(self, refusal: LlorchError) -> None:
        if refusal.reason != self._refused:
            self._refused = refusal.reason
            _log.warning("not_the_worker_of_this_pool_manager", address=self._address, why=refusal.message)

    async def _send(self, request: Request) -> None:
        stub = pool_manager_service_pb2_grpc.PoolManagerServiceStub(self._channel)
        await call(stub.ReportWorkerReady, request, timeout_s=CALL_TIMEOUT_S)
