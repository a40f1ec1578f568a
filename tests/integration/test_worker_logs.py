"""Logs of workers through the orchestrator, also of those that crashed."""

from pathlib import Path

import pytest

from llama_orch.v2 import fleet_service_pb2
from llorch.errors import NotFound
from llorch.rpc.client import open_stream
from support.whole_system import CRASH, WholeSystem, task, whole_system


async def read(system: WholeSystem, worker_id: str, **options: int) -> list[str]:
    request = fleet_service_pb2.StreamWorkerLogRequest(worker_id=worker_id, **options)  # type: ignore[arg-type]
    async with open_stream(system.fleet.StreamWorkerLog, request, timeout_s=10) as answers:
        return [line async for answer in answers for line in answer.lines]


async def worker_of(system: WholeSystem) -> str:
    (worker,) = (await system.state()).workers
    return str(worker.spec.worker_id)


@pytest.mark.req("POOL-2004")
async def test_the_log_of_a_worker_that_crashed_can_still_be_read(tmp_path: Path) -> None:
    async with whole_system(tmp_path) as system:
        assert (await system.generate(task()))[-1].HasField("end")
        crashed = await worker_of(system)
        assert len(await read(system, crashed, tail_lines=1)) == 1

        await system.generate(task(f"hello {CRASH}"))

        assert all(worker.spec.worker_id != crashed for worker in (await system.state()).workers)
        assert f'"worker_id": "{crashed}"' in "".join(await read(system, crashed))


@pytest.mark.parametrize("worker_id", ["worker-unknown", "../../etc/passwd", ""])
async def test_a_worker_that_never_was_is_not_found(tmp_path: Path, worker_id: str) -> None:
    async with whole_system(tmp_path) as system:
        with pytest.raises(NotFound, match="llorch ps"):
            await read(system, worker_id)
