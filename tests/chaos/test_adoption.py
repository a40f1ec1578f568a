"""The pool manager is killed, over and over, while workers answer: clients do not notice, and no worker is lost.

`make chaos-long` kills it 200 times, `make chaos` and the suite a tenth of that.
"""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_orch.v2 import fleet_service_pb2, node_pb2, task_pb2, task_service_pb2, worker_pb2
from llorch.logs import get_logger
from llorch.rpc.client import open_stream
from support import chaos_count
from support.pool_manager_process import PoolManagerProcess, pool_manager_process
from support.whole_system import WholeSystem, gguf, orchestrator_alone, wait_until

pytestmark = pytest.mark.req("POOL-2005")
_log = get_logger("chaos")

KILLS = chaos_count.of_long(200)
KILLS_OF_STARTS = chaos_count.of_long(50)
ADOPTED_WITHIN_S = 5.0
MODELS = ("first", "second", "third")
TOKENS_PER_S = 50
CONTEXT = 1_000_000
READY = worker_pb2.WORKER_STATE_READY


@dataclass
class Reader:
    """Reads one endless answer, and fails at the first thing about it that is not as it should be."""

    model: str
    next_index: int = 0
    placed: int = 0
    longest_silence_s: float = 0.0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, system: WholeSystem) -> None:
        work = task_pb2.GenerateWork(prompt="a story without end", max_tokens=CONTEXT - 100, ignore_eos=True)
        request = task_service_pb2.GenerateRequest(task=task_pb2.TaskSpec(model=self.model, generate=work))
        heard_at = time.monotonic()
        async with open_stream(system.tasks.Generate, request, idle_timeout_s=30) as answers:
            async for answer in answers:
                kind = answer.event.WhichOneof("event")
                assert kind not in ("end", "error"), answer.event
                self.placed += kind == "placed"
                if kind == "tokens":
                    assert answer.event.tokens.index == self.next_index
                    self.next_index += answer.event.tokens.count
                    now = time.monotonic()
                    if self.begun.is_set():
                        self.longest_silence_s = max(self.longest_silence_s, now - heard_at)
                    heard_at = now
                    self.begun.set()
        raise AssertionError(f"the stream of {self.model} ended")


async def all_begun(readers: list[Reader]) -> None:
    for reader in readers:
        await reader.begun.wait()


@asynccontextmanager
async def streaming(system: WholeSystem) -> AsyncIterator[list[Reader]]:
    """One reader per model, and so one worker each; all of them have seen tokens."""
    readers = [Reader(model) for model in MODELS]
    reading = [asyncio.create_task(reader.read(system), name=f"reader of {reader.model}") for reader in readers]
    begun = asyncio.create_task(all_begun(readers), name="first tokens")
    try:
        await asyncio.wait({begun, *reading}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for task in reading:
            if task.done():
                task.result()
        assert begun.done(), "no tokens after a minute"
        yield readers
        for task in reading:
            if task.done():
                task.result()
    finally:
        begun.cancel()
        for task in reading:
            task.cancel()
        await asyncio.gather(begun, *reading, return_exceptions=True)


@asynccontextmanager
async def running(folder: Path, **flags: object) -> AsyncIterator[tuple[WholeSystem, PoolManagerProcess]]:
    async with (
        orchestrator_alone(folder) as system,
        pool_manager_process(
            folder / "pool", system.address, sim={"decode_tokens_per_s": TOKENS_PER_S}, **flags
        ) as manager,
    ):
        await manager.start()
        await wait_until(lambda: node_is(system, node_pb2.NODE_STATE_READY), 30)
        for model in MODELS:
            await system.register(model, f"file:{gguf(folder, f'{model}.gguf', CONTEXT)}", slots=2, context=CONTEXT)
        yield system, manager


async def node_is(system: WholeSystem, state: node_pb2.NodeState.ValueType) -> bool:
    return [node.state for node in (await system.state()).nodes] == [state]


def workers_in(state: fleet_service_pb2.State) -> dict[str, tuple[int, worker_pb2.WorkerState.ValueType]]:
    return {worker.spec.worker_id: (worker.pid, worker.state) for worker in state.workers}


@pytest.mark.alone
@pytest.mark.timeout(120 + 6 * KILLS)
async def test_a_killed_pool_manager_takes_its_workers_back_and_no_stream_notices(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311  made up, not secret
    async with running(tmp_path) as (system, manager), streaming(system) as readers:
        before = workers_in(await system.state())
        assert [state for _, state in before.values()] == [READY] * len(MODELS)
        took_s = []
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            seen = [reader.next_index for reader in readers]
            await manager.kill()
            await manager.start()
            started_at = time.monotonic()
            adopted = {
                worker.worker.spec.worker_id: (worker.worker.pid, worker.worker.state)
                for worker in (await manager.snapshot()).workers
            }
            took_s.append(time.monotonic() - started_at)
            assert adopted == before
            assert all(reader.next_index > index for reader, index in zip(readers, seen, strict=True))
        _log.info(
            "adoption",
            kills=KILLS,
            slowest_s=round(max(took_s), 2),
            median_s=round(statistics.median(took_s), 2),
            longest_silence_of_a_stream_s=round(max(reader.longest_silence_s for reader in readers), 2),
        )
        assert max(took_s) <= ADOPTED_WITHIN_S
        await wait_until(lambda: node_is(system, node_pb2.NODE_STATE_READY), 10)
        assert workers_in(await system.state()) == before
        assert {pid for pid, _ in before.values()} == manager.worker_pids()
    assert [reader.placed for reader in readers] == [1] * len(readers)


async def test_a_pool_manager_that_is_told_to_end_leaves_its_workers_to_the_next_one(tmp_path: Path) -> None:
    async with running(tmp_path) as (system, manager), streaming(system) as readers:
        before = workers_in(await system.state())
        assert await manager.terminate() == 0
        assert {pid for pid, _ in before.values()} == manager.worker_pids()
        await manager.start()
        assert {worker.worker.pid for worker in (await manager.snapshot()).workers} == manager.worker_pids()
    assert [reader.placed for reader in readers] == [1] * len(readers)


async def test_no_worker_outlives_its_pool_manager_for_longer_than_the_grace(tmp_path: Path) -> None:
    async with running(tmp_path, orphan_grace_s=2) as (system, manager):
        for model in MODELS:
            await system.submit(task(model))
        await wait_until(lambda: all_are_ready(system), 30)
        assert len(manager.worker_pids()) == len(MODELS)
        await manager.kill()
        await asyncio.sleep(0.5)
        assert len(manager.worker_pids()) == len(MODELS)
        await manager.wait_no_worker(within_s=2 + 5)


@pytest.mark.timeout(120 + 10 * KILLS_OF_STARTS)
async def test_a_kill_at_any_moment_of_a_start_loses_no_worker(tmp_path: Path) -> None:
    """Every process that there is, is known; what was asked for comes, or its failure is told."""
    chance = random.Random(2)  # noqa: S311  the same
    async with running(tmp_path, orphan_grace_s=60) as (system, manager):
        for number in range(KILLS_OF_STARTS):
            name = f"model-{number}"
            await system.register(name, f"file:{gguf(tmp_path, f'{name}.gguf')}", slots=1, context=1024)
            task_id = await system.submit(task(name))
            # While the command is on its way, or later, in the middle of the worker's start.
            await asyncio.sleep(chance.uniform(0.0, chance.choice((0.02, 0.6))))
            await manager.kill()
            await manager.start()
            await manager.snapshot()

            async def is_served(name: str = name, task_id: str = task_id) -> bool:
                asked = await system.task(task_id)
                assert asked.state != task_pb2.TASK_STATE_FAILED, await system.stream(task_id)
                workers = (await system.state()).workers
                return any(worker.spec.model == name and worker.state == READY for worker in workers)

            await wait_until(is_served, 30)
        snapshot = await manager.snapshot()
        known = {worker.worker.pid for worker in snapshot.workers if worker.worker.state == READY}
        assert manager.worker_pids() == known
        assert len(known) == KILLS_OF_STARTS


async def all_are_ready(system: WholeSystem) -> bool:
    workers = (await system.state()).workers
    return [worker.state for worker in workers] == [READY] * len(MODELS)


def task(model: str) -> task_pb2.TaskSpec:
    return task_pb2.TaskSpec(model=model, generate=task_pb2.GenerateWork(prompt="hello", max_tokens=4))
