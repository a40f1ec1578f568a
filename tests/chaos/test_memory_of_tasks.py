"""What finished tasks leave behind: in the orchestrator's memory, and in its database.

`make chaos-long` has the 10,000 prompts of the figures; `make chaos` and the suite have as many as there is time for.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from llama_orch.v2 import task_pb2, task_service_pb2, task_service_pb2_grpc
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel, open_stream
from support import chaos_count
from support.gguf_writer import smallest_model
from support.machines import Machines, machines, wait_for
from support.streams import check_stream
from worker_orcd.engines.sim.tokens import sim_text

MIB = 2**20
PROMPTS = chaos_count.of_long(10_000) if chaos_count.IS_FULL else chaos_count.of(4_000)
PROMPT_BYTES = MIB
UNFINISHED = 64
"""Tasks at a time: so many there are where 10,000 come in an hour, and each takes 23 s."""
MOST_RSS = 400 * MIB
MOST_DATABASE = 1024 * MIB
DATABASE_AFTERWARDS = 64 * MIB

WARM_UP = 2_000
"""Until pools and rings are full: that of the newest 1,000 decisions, and SQLite's of 1 MiB of pages, which 1,700 tasks
fill.
"""
KEPT = 8_000 if chaos_count.IS_FULL else chaos_count.of(30_000)
"""So many that what comes and goes, some 300 KiB as garbage is collected, is 100 bytes of each."""
MOST_PER_TASK = 4096
TOKENS = 12

_log = get_logger("chaos")
_CALL_S = 30.0
_SILENT_S = 60.0
_SIM = {"decode_tokens_per_s": 100_000, "prefill_tokens_per_s": 1_000_000_000}
_MODEL = "reader"


@dataclass
class Peak:
    """The most that the orchestrator took, in bytes."""

    rss: int = 0
    database: int = 0


@asynccontextmanager
async def measured(running: Machines) -> AsyncIterator[Peak]:
    peak = Peak()

    async def measure() -> None:
        while True:
            peak.rss = max(peak.rss, rss_of(running))
            peak.database = max(peak.database, database_of(running))
            await asyncio.sleep(0.05)

    measuring = asyncio.create_task(measure())
    try:
        yield peak
    finally:
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)


def rss_of(running: Machines) -> int:
    assert running.orchestrator.process is not None
    return int(psutil.Process(running.orchestrator.process.pid).memory_info().rss)


def database_of(running: Machines) -> int:
    """With its write-ahead log."""
    folder = running.orchestrator.folder / "data"
    return sum(file.stat().st_size for file in folder.glob("orchestrator.db*"))


@asynccontextmanager
async def reading_system(folder: Path) -> AsyncIterator[tuple[Machines, task_service_pb2_grpc.TaskServiceStub]]:
    async with machines(folder, "garage", sim=_SIM, cards=("RTX 3090:24GiB",)) as running:
        file = folder / "reader.gguf"
        file.write_bytes(smallest_model(context_trained=PROMPT_BYTES))
        async with running.client() as client:
            await client.register_model(_MODEL, f"file:{file}", slots=16, context=PROMPT_BYTES, vram_claim_mib=1000)
        async with open_channel(running.orchestrator.address) as channel:
            yield running, task_service_pb2_grpc.TaskServiceStub(channel)


def spec(prompt: str) -> task_pb2.TaskSpec:
    work = task_pb2.GenerateWork(prompt=prompt, max_tokens=TOKENS)
    work.sampling.seed = 7
    return task_pb2.TaskSpec(model=_MODEL, generate=work)


@pytest.mark.timeout(120 + 0.2 * PROMPTS)
async def test_long_prompts_go_with_the_end_of_their_tasks(tmp_path: Path) -> None:
    async with reading_system(tmp_path) as (running, tasks), measured(running) as peak:
        ids: list[str] = []
        numbers = iter(range(PROMPTS))

        async def one_after_the_other() -> None:
            for number in numbers:
                task = spec(prompt_of(number))
                task.request_id = f"request-{number}"
                submitted = await call(
                    tasks.SubmitTask, task_service_pb2.SubmitTaskRequest(task=task), timeout_s=_CALL_S
                )
                ids.append(submitted.task_id)
                assert await read(tasks, submitted.task_id) == sim_text(7, 0, TOKENS)

        async with asyncio.TaskGroup() as clients:
            for _ in range(UNFINISHED):
                clients.create_task(one_after_the_other())

        async def is_small() -> bool:
            return database_of(running) <= DATABASE_AFTERWARDS

        await wait_for(is_small, "the database to give its space back")
        assert await read(tasks, ids[0]) == sim_text(7, 0, TOKENS), "a reader that comes late"
        again = spec(prompt_of(0))
        again.request_id = "request-0"
        repeated = await call(tasks.SubmitTask, task_service_pb2.SubmitTaskRequest(task=again), timeout_s=_CALL_S)
        assert repeated.task_id in ids
    _log.info("long_prompts", prompts=PROMPTS, rss_mib=peak.rss // MIB, database_mib=peak.database // MIB)
    assert peak.rss <= MOST_RSS
    assert peak.database <= MOST_DATABASE


@pytest.mark.timeout(120 + 0.02 * (WARM_UP + KEPT))
async def test_a_finished_task_takes_little_memory(tmp_path: Path) -> None:
    async with reading_system(tmp_path) as (running, tasks):
        await generate(tasks, WARM_UP)
        before = rss_of(running)
        await generate(tasks, KEPT)
        per_task = (rss_of(running) - before) / KEPT
    _log.info("finished_tasks", tasks=KEPT, bytes_per_task=round(per_task))
    assert per_task <= MOST_PER_TASK


async def generate(tasks: task_service_pb2_grpc.TaskServiceStub, count: int) -> None:
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            request = task_service_pb2.GenerateRequest(task=spec("hello"))
            async with open_stream(tasks.Generate, request, idle_timeout_s=_SILENT_S) as answers:
                events = [answer.event async for answer in answers]
            assert events[-1].end.tokens_out == TOKENS

    async with asyncio.TaskGroup() as clients:
        for _ in range(16):
            clients.create_task(one_after_the_other())


async def read(tasks: task_service_pb2_grpc.TaskServiceStub, task_id: str) -> str:
    request = task_service_pb2.StreamTaskRequest(task_id=task_id)
    async with open_stream(tasks.StreamTask, request, idle_timeout_s=_SILENT_S) as answers:
        events = [answer.event async for answer in answers]
    assert not events[-1].HasField("error"), events[-1]
    return check_stream(events)


def prompt_of(number: int) -> str:
    """None is like another."""
    return random.Random(number).randbytes(PROMPT_BYTES // 2).hex()  # noqa: S311  # no secret
