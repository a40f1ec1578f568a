"""Workers are killed at any moment of their lives: each end is told within a second, and nothing is left of them.

`make chaos-long` kills 300, `make chaos` and the suite a tenth of that; every fourth one was started by an earlier life
of the pool manager.
"""

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_orch.v2 import node_link_pb2, run_pb2, worker_pb2, worker_service_pb2
from llama_orch.v2.worker_service_pb2_grpc import WorkerServiceStub
from llorch.errors import LlorchError
from llorch.logs import get_logger
from llorch.rpc.client import open_channel, open_stream
from support import chaos_count
from support.orchestrator_stub import NodeReport, OrchestratorStub, serving, snapshot_of
from support.pool_manager_commands import PoolManagerCommands, commanding
from support.pool_manager_process import PoolManagerProcess, pool_manager_process, reap
from support.whole_system import gguf

KILLS = chaos_count.of_long(300)
SIDE_BY_SIDE = 3
ADOPTED_PER_ROUND = 3
PER_ROUND = 4 * ADOPTED_PER_ROUND
TOLD_WITHIN_S = 1.0
ENDED = (worker_pb2.WORKER_STATE_EXITED, worker_pb2.WORKER_STATE_FAILED)
SIM = {"decode_tokens_per_s": 50, "load_s": 0.3, "vram_mib": 420}

Wanted = Callable[[worker_pb2.Worker], bool]

_log = get_logger("chaos")


@dataclass
class Slaughter:
    """`told_s`: from each kill to the report of it."""

    manager: PoolManagerProcess
    commands: PoolManagerCommands
    orchestrator: OrchestratorStub
    source: str
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311  made up, not secret
    told_s: list[float] = field(default_factory=list)
    states: set[int] = field(default_factory=set)
    """In which the victims were."""

    async def one(self, number: int) -> None:
        """Starts a worker, lets it live for a while, kills it, and reads what is said of that."""
        worker_id = f"w-{number}"
        await self.commands.start(self.source, worker_id)
        worker = await self.wait_worker(worker_id, lambda worker: worker.pid > 0)
        working = None
        match self.chance.choice(("soon", "later", "ready", "working", "stopping")):
            case "soon":
                await asyncio.sleep(self.chance.uniform(0.0, 0.2))
            case "later":
                await asyncio.sleep(self.chance.uniform(0.2, 1.5))
            case "ready":
                worker = await self.wait_ready(worker_id)
            case "working":
                worker = await self.wait_ready(worker_id)
                working = asyncio.create_task(self.work(worker_id))
                await asyncio.sleep(self.chance.uniform(0.0, 0.3))
            case "stopping":
                await self.wait_ready(worker_id)
                await self.commands.stop(worker_id)
        await self.kill(worker_id, worker.pid)
        if working is not None:
            await working

    async def kill(self, worker_id: str, pid: int) -> None:
        killed_at = time.monotonic()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it was told to stop, and had ended
        ended = await self.wait_worker(worker_id, lambda worker: worker.state in ENDED)
        self.told_s.append(time.monotonic() - killed_at)
        self.states.add(ended.state)
        how = ended.exit
        if how.HasField("exit_code"):
            assert ended.state == worker_pb2.WORKER_STATE_EXITED, "only one that was told to stop can have been faster"
        else:
            assert how.signal == signal.SIGKILL
        assert list(how.last_lines) == self.manager.log_of(worker_id).splitlines()[-20:]
        assert bool(how.reason) == bool(how.message) == (ended.state == worker_pb2.WORKER_STATE_FAILED)
        assert how.HasField("end_time")
        # One of an earlier life is an orphan, and its end for its new parent, us, to take note of.
        assert parent_of(pid) in (None, os.getpid()), "a zombie was left"

    async def work(self, worker_id: str) -> None:
        report = await self.report_of(worker_id, lambda worker: worker.state == worker_pb2.WORKER_STATE_READY)
        spec = run_pb2.RunSpec()
        spec.generate.prompt, spec.generate.max_tokens, spec.generate.ignore_eos = "a story", 90_000, True
        async with open_channel(report.endpoint.advertise_address, token=report.endpoint.access_token) as channel:
            request = worker_service_pb2.ExecuteRequest(spec=spec)
            with suppress(LlorchError):  # it is killed under it
                async with open_stream(WorkerServiceStub(channel).Execute, request, idle_timeout_s=10) as answers:
                    async for _ in answers:
                        pass

    async def adopted_ones(self, first: int) -> None:
        """As many workers are ready when the pool manager is killed; their end is told by the next one."""
        ids = [f"w-{first + number}" for number in range(ADOPTED_PER_ROUND)]
        await asyncio.gather(*(self.commands.start(self.source, worker_id) for worker_id in ids))
        pids = {worker_id: (await self.wait_ready(worker_id)).pid for worker_id in ids}
        links = self.orchestrator.links
        await self.manager.kill()
        await self.manager.start()
        async with asyncio.timeout(20):
            while self.orchestrator.links == links:
                await asyncio.sleep(0.01)
        await asyncio.gather(*(self.kill(worker_id, pid) for worker_id, pid in pids.items()))
        reap(pids.values())

    async def wait_ready(self, worker_id: str) -> worker_pb2.Worker:
        return await self.wait_worker(worker_id, lambda worker: worker.state == worker_pb2.WORKER_STATE_READY)

    async def wait_worker(self, worker_id: str, wanted: Wanted) -> worker_pb2.Worker:
        return (await self.report_of(worker_id, wanted)).worker

    async def report_of(self, worker_id: str, wanted: Wanted) -> node_link_pb2.WorkerReport:
        def find(report: NodeReport) -> node_link_pb2.WorkerReport | None:
            for worker in snapshot_of(report).workers:
                if worker.worker.spec.worker_id == worker_id and wanted(worker.worker):
                    return worker
            return None

        found = find(await self.orchestrator.wait_report(lambda report: find(report) is not None, 30))
        assert found is not None
        return found


def parent_of(pid: int) -> int | None:
    """None where there is no such process, not even a zombie."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


@pytest.mark.req("POOL-2004")
@pytest.mark.timeout(120 + 5 * KILLS)
async def test_every_killed_worker_is_told_of_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    orchestrator = OrchestratorStub()
    async with (
        serving(orchestrator) as address,
        pool_manager_process(tmp_path / "pool", address, sim=SIM) as manager,
    ):
        await manager.start()
        await manager.snapshot()
        async with commanding(manager.address) as commands:
            slaughter = Slaughter(manager, commands, orchestrator, f"file:{gguf(tmp_path)}")
            number = 0
            while len(slaughter.told_s) < KILLS:
                ones = PER_ROUND - ADOPTED_PER_ROUND
                for first in range(number, number + ones, SIDE_BY_SIDE):
                    await asyncio.gather(*(slaughter.one(first + other) for other in range(SIDE_BY_SIDE)))
                await slaughter.adopted_ones(number + ones)
                number += PER_ROUND
                orchestrator.reports.clear()
                await nothing_is_left(manager)
        _log.info(
            "worker kills",
            kills=len(slaughter.told_s),
            slowest_ms=round(max(slaughter.told_s) * 1000),
            median_ms=round(statistics.median(slaughter.told_s) * 1000),
        )
        assert max(slaughter.told_s) <= TOLD_WITHIN_S
        assert slaughter.states >= {worker_pb2.WORKER_STATE_FAILED}


async def nothing_is_left(manager: PoolManagerProcess) -> None:
    """Memory is as it was before there were workers, as soon as the device was looked at again; no process is there."""
    async with asyncio.timeout(5):
        while (snapshot := await manager.snapshot()).workers or snapshot.devices[0].memory_used_mib:
            await asyncio.sleep(0.05)
    assert manager.worker_pids() == set()
    assert manager.process is not None
    children = Path(f"/proc/{manager.process.pid}/task/{manager.process.pid}/children").read_text()  # noqa: ASYNC240
    assert children == ""
