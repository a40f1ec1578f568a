"""Calls to workers, other than for their stats."""

import asyncio
from collections.abc import Mapping

from llama_orch.v2.worker_service_pb2 import AdoptRequest, ShutdownRequest
from llama_orch.v2.worker_service_pb2_grpc import WorkerServiceStub
from llorch.errors import LlorchError
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel
from llorch.rpc.sessions_to_save import from_sessions_to_save
from pool_managerd.advertise import local_address
from pool_managerd.workers.status import AdoptAnswer

_log = get_logger(__name__)

_ANSWER_WITHIN_S = 1.0
_ADOPT_WITHIN_S = 3.0
_ADOPT_AGAIN_AFTER_S = 0.1


class GrpcWorkerCalls:
    """No error is raised: a worker that does not answer is ended by a signal."""

    async def shut_down(self, address: str, access_token: str, save_s: Mapping[str, float]) -> bool:
        """Whether it answered that it will end, which lets it end its runs in order and save these sessions."""
        request = ShutdownRequest(save=from_sessions_to_save(save_s))
        async with open_channel(address, token=access_token) as channel:
            try:
                await call(WorkerServiceStub(channel).Shutdown, request, timeout_s=_ANSWER_WITHIN_S)
            except LlorchError as error:
                _log.info("worker_did_not_answer_shutdown", address=address, reason=error.reason)
                return False
        return True

    async def adopt(self, address: str, access_token: str, ready_address: str) -> AdoptAnswer | None:
        """Asks again for a while: a worker may be slow for a moment. None where it never answers."""
        request = AdoptRequest(ready_address=ready_address)
        try:
            async with (
                asyncio.timeout(_ADOPT_WITHIN_S),
                open_channel(local_address(address), token=access_token) as channel,
            ):
                while True:
                    try:
                        answer = await call(WorkerServiceStub(channel).Adopt, request, timeout_s=_ANSWER_WITHIN_S)
                    except LlorchError as error:
                        _log.info("worker_did_not_answer_adoption", address=address, reason=error.reason)
                        await asyncio.sleep(_ADOPT_AGAIN_AFTER_S)
                    else:
                        engine = answer.engine.SerializeToString() if answer.HasField("engine") else b""
                        return AdoptAnswer(answer.worker_id, engine, tuple(answer.engine.memory_mib))
        except TimeoutError:
            return None
