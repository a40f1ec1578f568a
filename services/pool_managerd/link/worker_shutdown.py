"""Asking a worker to end by itself, which lets it end its runs in order."""

from llama_orch.v2.worker_service_pb2 import ShutdownRequest
from llama_orch.v2.worker_service_pb2_grpc import WorkerServiceStub
from llorch.errors import LlorchError
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel

log = get_logger(__name__)

_ANSWER_WITHIN_S = 1.0


async def shut_down(address: str, access_token: str) -> bool:
    """Whether the worker answered. One that does not is ended by a signal, so no error is raised."""
    async with open_channel(address, token=access_token) as channel:
        try:
            await call(WorkerServiceStub(channel).Shutdown, ShutdownRequest(), timeout_s=_ANSWER_WITHIN_S)
        except LlorchError as exc:
            log.info("worker_did_not_answer_shutdown", address=address, reason=exc.reason)
            return False
    return True
