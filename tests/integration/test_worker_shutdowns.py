"""Starts that a worker refuses for a moment: it shuts down, or still lets go of what it was told to release."""

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from llama_orch.v2 import task_service_pb2
from llorch.rpc.client import call
from support import living_processes
from support.streams import check_stream
from support.whole_system import CALL_S, STUCK, WholeSystem, task, wait_until, whole_system

TOKENS = 400


def worker_pids() -> list[int]:
    return [process.pid for process, command in living_processes.below(psutil.Process()) if "worker_orcd" in command]


async def shown(system: WholeSystem, task_id: str) -> bool:
    return (await system.task(task_id)).log_entries >= 3


async def cancel(system: WholeSystem, task_id: str) -> None:
    await call(system.tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id), timeout_s=CALL_S)


@pytest.mark.parametrize("streams", [1, 4])
async def test_a_worker_that_is_told_to_end_by_its_machine_costs_no_stream(tmp_path: Path, streams: int) -> None:
    async with whole_system(tmp_path) as system:
        await system.generate(task())
        ids = [await system.submit(task(f"story {number}", max_tokens=TOKENS)) for number in range(streams)]
        waiting = await system.submit(task("a story that waits", max_tokens=TOKENS)) if streams > 1 else None
        for task_id in ids:
            await wait_until(lambda task_id=task_id: shown(system, task_id))  # type: ignore[misc]
        pids = worker_pids()
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for task_id in [*ids, *([waiting] if waiting else [])]:
            async with asyncio.timeout(60):
                events = await system.stream(task_id)
            check_stream(events)
            assert events[-1].HasField("end"), events[-1]


async def test_a_task_that_comes_while_the_only_worker_shuts_down_waits_for_the_next_one(tmp_path: Path) -> None:
    """The worker lets its last run go first, and refuses to start others meanwhile; its link is whole."""
    async with whole_system(tmp_path) as system:
        await system.generate(task())
        stuck = await system.submit(task(f"story {STUCK}", max_tokens=TOKENS))
        await wait_until(lambda: shown(system, stuck))
        for pid in worker_pids():
            os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(0.2)  # nothing tells that it has heard the signal
        task_id = await system.submit(task("a story that comes", max_tokens=TOKENS))
        await cancel(system, stuck)  # or it would end the next worker too
        async with asyncio.timeout(60):
            events = await system.stream(task_id)
        assert events[-1].HasField("end"), events[-1]


async def test_a_waiting_task_does_not_fail_since_a_run_of_before_is_just_being_released(tmp_path: Path) -> None:
    """The task that ran was cancelled before its run was found; its slot is taken until the engine's step is over."""
    async with whole_system(tmp_path, slots=1, sim=json.dumps({"decode_tokens_per_s": 5})) as system:
        runs = await system.submit(task("a story", max_tokens=TOKENS))
        await wait_until(lambda: shown(system, runs))
        waits = await system.submit(task("a story that waits", max_tokens=3))
        assert system.lives is not None
        await system.lives.begin_next(system.address)
        await cancel(system, runs)
        async with asyncio.timeout(60):
            events = await system.stream_when_found(waits)
        assert events[-1].HasField("end"), events[-1]
