"""What a worker tells its pool manager, and how it notices that there is none any more."""

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from llama_orch.v2 import pool_manager_service_pb2, pool_manager_service_pb2_grpc
from llorch.clock import Clock
from llorch.errors import DeadlineExceeded, LlorchError, Unavailable
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel
from worker_orcd import convert
from worker_orcd.engine_info import EngineInfo

CALL_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 5.0
PULSE_S = 10.0

_log = get_logger("worker-orcd")


class PoolManagerLink:
    """Calls to the pool manager at `address`. Away for `orphan_grace_s`, it counts as gone for good."""

    def __init__(self, address: str, token: str | None, worker_id: str, orphan_grace_s: float, clock: Clock) -> None:
        self._channel = open_channel(address, token=token)
        self._worker_id = worker_id
        self._orphan_grace_s = orphan_grace_s
        self._clock = clock
        self._heard_at = clock.monotonic()

    async def report_ready(self, address: str, info: EngineInfo) -> None:
        """Tries again while the pool manager can't be reached, for as long as the worker may be an orphan."""
        await self._report(
            pool_manager_service_pb2.ReportWorkerReadyRequest(
                worker_id=self._worker_id, address=address, engine=convert.engine_info(info)
            )
        )

    async def report_failure(self, error: LlorchError) -> None:
        """Once: the process ends with the same words on stderr, whoever hears this."""
        request = pool_manager_service_pb2.ReportWorkerReadyRequest(
            worker_id=self._worker_id,
            failure_reason=convert.error_reason(error.reason),
            failure_message=error.message,
        )
        try:
            await self._send(request)
        except LlorchError as unheard:
            _log.warning("failure_report_not_heard", reason=unheard.reason)

    async def wait_orphaned(self) -> None:
        """Returns when the pool manager has not answered for the grace. Any answer counts, a refusal too."""
        stub = health_pb2_grpc.HealthStub(self._channel)  # type: ignore[no-untyped-call]  # no stubs
        while not self._is_orphan():
            await asyncio.sleep(min(PULSE_S, self._orphan_grace_s / 2))
            if await _answers(stub.Check, health_pb2.HealthCheckRequest()):
                self._heard_at = self._clock.monotonic()
        _log.warning("pool_manager_gone", grace_s=self._orphan_grace_s)

    async def close(self) -> None:
        await self._channel.close(None)

    def _is_orphan(self) -> bool:
        return self._clock.monotonic() - self._heard_at >= self._orphan_grace_s

    async def _report(self, request: pool_manager_service_pb2.ReportWorkerReadyRequest) -> None:
        pause_s = FIRST_RETRY_S
        while True:
            try:
                await self._send(request)
            except (Unavailable, DeadlineExceeded):
                if self._is_orphan():
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_RETRY_S)
            else:
                self._heard_at = self._clock.monotonic()
                return

    async def _send(self, request: pool_manager_service_pb2.ReportWorkerReadyRequest) -> None:
        stub = pool_manager_service_pb2_grpc.PoolManagerServiceStub(self._channel)
        await call(stub.ReportWorkerReady, request, timeout_s=CALL_TIMEOUT_S)


async def _answers(method: Any, request: Any) -> bool:
    try:
        await call(method, request, timeout_s=CALL_TIMEOUT_S)
    except (Unavailable, DeadlineExceeded):
        return False
    except LlorchError:
        return True
    return True
