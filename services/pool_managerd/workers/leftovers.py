"""Workers that an earlier life of the pool manager left behind."""

import asyncio
import signal

from llorch.logs import get_logger
from pool_managerd.workers.command import ACCESS_TOKEN_VARIABLE
from pool_managerd.workers.identity import ProcessIdentity, find_by_environment, is_alive, signal_proven
from pool_managerd.workers.journal import WorkerRecord

log = get_logger(__name__)

_TERMINATE_S = 3.0
_KILL_S = 5.0
_POLL_S = 0.02


async def end_leftover(record: WorkerRecord) -> None:
    """Ends the process of this record if one lives and is proven to be it; touches nothing else."""
    process = record.process or await asyncio.to_thread(_find_by_secret, record)
    if process is None or not is_alive(process):
        return
    log.warning("leftover_worker_ended", worker_id=record.worker_id, pid=process.pid)
    for number, seconds in ((signal.SIGTERM, _TERMINATE_S), (signal.SIGKILL, _KILL_S)):
        if not signal_proven(process, number) or await _gone_within(process, seconds):
            return
    log.error("leftover_worker_does_not_end", worker_id=record.worker_id, pid=process.pid)


def _find_by_secret(record: WorkerRecord) -> ProcessIdentity | None:
    return find_by_environment(ACCESS_TOKEN_VARIABLE, record.access_token) if record.access_token else None


async def _gone_within(process: ProcessIdentity, seconds: float) -> bool:
    """It is not our child any more, so the kernel has to be asked."""
    deadline = asyncio.get_running_loop().time() + seconds
    while is_alive(process):
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
