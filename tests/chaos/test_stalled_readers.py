"""Half of all readers stop to read: the others notice nothing of it.

`make chaos` judges the median of five pairs of runs, with and without; the suite makes one pair, and judges the texts.
"""

import asyncio
import os
import signal
import statistics
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest

from llama_orch.v2 import task_event_pb2, task_pb2, task_service_pb2, worker_pb2
from llama_orch.v2.task_service_pb2_grpc import TaskServiceStub
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel, open_stream
from llorch.sdk.async_client import AsyncClient
from support import chaos_count
from support.machines import machines, wait_for
from support.streams import check_stream
from support.whole_system import gguf
from worker_orcd.engines.sim.tokens import sim_text

pytestmark = [pytest.mark.req("ORCH-1005"), pytest.mark.timeout(600), pytest.mark.alone]
_log = get_logger("chaos")

PAIRS = 5 if chaos_count.IS_FULL else 1
TASKS, READERS_OF_TASK = 10, 5
TOKENS = 900 if chaos_count.IS_FULL else 300
SEED = 3
RATIO = 1.2
"""Of the 99th percentiles of the gaps between two events, of those that go on reading."""


async def is_loaded(client: AsyncClient) -> bool:
    return any(worker.state == worker_pb2.WORKER_STATE_READY for worker in (await client.state()).workers)


async def submitted(channel: grpc.aio.Channel) -> str:
    work = task_pb2.GenerateWork(prompt="once", max_tokens=TOKENS)
    work.sampling.seed = SEED
    request = task_service_pb2.SubmitTaskRequest(task=task_pb2.TaskSpec(model="story", generate=work))
    return (await call(TaskServiceStub(channel).SubmitTask, request, timeout_s=10)).task_id


async def read(channel: grpc.aio.Channel, task_id: str, gaps: list[float]) -> None:
    events: list[task_event_pb2.TaskEvent] = []
    before: float | None = None
    request = task_service_pb2.StreamTaskRequest(task_id=task_id)
    async with open_stream(TaskServiceStub(channel).StreamTask, request) as answers:
        async for answer in answers:
            events.append(answer.event)
            if answer.event.HasField("tokens"):
                now = time.monotonic()
                if before is not None:
                    gaps.append(now - before)
                before = now
    assert check_stream(events) == sim_text(SEED, 0, TOKENS)


async def p99_gap(address: str, channel: grpc.aio.Channel, *, stalls: bool) -> float:
    """Of the readers in this process; as many are in another one, which `stalls`."""
    tasks = [await submitted(channel) for _ in range(TASKS)]
    arguments = ("-m", "support.stalled_client", address, *(task for task in tasks for _ in range(READERS_OF_TASK)))
    others = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    gaps: list[float] = []
    try:
        assert others.stdout is not None
        async with asyncio.timeout(30):
            assert (await others.stdout.readline()) == b"reading\n"
        if stalls:
            others.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for task in tasks:
                for _ in range(READERS_OF_TASK):
                    group.create_task(read(channel, task, gaps))
    finally:
        with suppress(ProcessLookupError):  # where it does not stall, it reads to the end and ends by itself
            others.kill()
        await others.wait()
    return sorted(gaps)[round(0.99 * (len(gaps) - 1))]


async def test_readers_that_stop_to_read_hold_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    sim = {"decode_tokens_per_s": 100, "load_s": 0.1}
    ratios: list[float] = []
    async with machines(tmp_path, "attic", sim=sim, cards=["RTX 3090:24GiB"]) as running, running.client() as client:
        await client.register_model("story", f"file:{gguf(tmp_path, 'story.gguf')}", slots=TASKS)
        await client.load_model("story")
        await wait_for(partial(is_loaded, client), "the worker")
        address = running.orchestrator.address
        async with open_channel(address) as channel:
            for _ in range(PAIRS):
                without = await p99_gap(address, channel, stalls=False)
                ratios.append(await p99_gap(address, channel, stalls=True) / without)
    _log.info("readers_stalled", pairs=PAIRS, ratio_of_p99_gaps=[round(ratio, 2) for ratio in ratios])
    assert statistics.median(ratios) <= RATIO or not chaos_count.IS_FULL
