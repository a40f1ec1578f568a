"""The store fails: before a commit, after it, for want of room in the midst of it, with the process that writes.

No task is lost, none is there twice, and none has two terminals. `make chaos` takes 1,000 tasks for each kind of fault,
the suite a tenth of that.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from llama_orch.v2 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    model_pb2,
    task_event_pb2,
    task_pb2,
    task_service_pb2,
)
from llama_orch.v2.task_service_pb2_grpc import TaskServiceStub
from llorch.errors import InvalidArgument, Reason, Unavailable
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel, open_stream
from orchestratord.core.facts.task import TaskState
from orchestratord.runtime.task_reader import END_KEPT_WITHIN_S
from orchestratord.store.sqlite import FILE, open_sqlite
from support import chaos_count
from support.disk_shim import DiskShim
from support.faulty_orchestrator import FaultyOrchestrator
from support.pool_manager_process import pool_manager_process
from support.streams import check_stream
from support.whole_system import gguf, task
from worker_orcd.engines.sim.tokens import sim_text

pytestmark = pytest.mark.req("ORCH-1009")
_log = get_logger("chaos")

TASKS = chaos_count.of(1000)
KILLS = chaos_count.of(10)
TOKENS = 4
CLIENTS = 24
SLOTS = 8
FULL_FOR_S = (0.05, 0.5)
HELD_UP_TOKENS = 100
SENT_AWAY_WITHIN_S = 4.0
"""Readers are woken every two seconds, on a machine that does other things."""
_CALL_S = 20.0
_SILENT_S = 30.0
_PAUSE_S = 0.05
_TASKS_WITHIN_S = 120.0
_SIM = {"decode_tokens_per_s": 200, "prefill_tokens_per_s": 1_000_000}
Answer = TypeVar("Answer")


@dataclass
class Burst:
    """What clients do that want each of their requests done once, and what they were told."""

    stub: TaskServiceStub
    task_ids: dict[str, str] = field(default_factory=dict)
    """By request_id, as they were acknowledged."""
    terminals: dict[str, bytes] = field(default_factory=dict)
    """By task, as its reader has seen it."""
    refused: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        wanted = [f"request-{number}" for number in range(TASKS)]
        wanted.reverse()

        async def client() -> None:
            while wanted:
                await self._have_done(wanted.pop())

        async with asyncio.timeout(_TASKS_WITHIN_S + TASKS), asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(client())

    async def _have_done(self, request_id: str) -> None:
        task_id = await self.submit(request_id, TOKENS)
        self.terminals[task_id] = await self.read(task_id)

    async def submit(self, request_id: str, tokens: int) -> str:
        request = task_service_pb2.SubmitTaskRequest(task=task(max_tokens=tokens, request_id=request_id))
        answer = await insist(lambda: call(self.stub.SubmitTask, request, timeout_s=_CALL_S), self.refused)
        self.task_ids[request_id] = answer.task_id
        return answer.task_id

    async def read(self, task_id: str, until: Callable[[], bool] = lambda: False) -> bytes:
        """Reads on where a stream broke, and from the beginning where the task began anew, or gives up where it broke
        and `until` holds. Returns the terminal, or nothing.
        """
        events: list[task_event_pb2.TaskEvent] = []
        while not events or not events[-1].HasField("end"):  # one that was killed with the terminal has said all
            request = task_service_pb2.StreamTaskRequest(task_id=task_id, after=events[-1].cursor if events else "")
            try:
                async with open_stream(self.stub.StreamTask, request, idle_timeout_s=_SILENT_S) as answers:
                    async for answer in answers:
                        if not events or answer.event.WhichOneof("event") != "started":
                            events.append(answer.event)
            except InvalidArgument as error:
                if error.reason is not Reason.STREAM_RESET:
                    raise
                events.clear()
            except Unavailable as error:
                self.refused[f"reading: {error.reason}"] += 1
                if until():
                    return b""
                await asyncio.sleep(_PAUSE_S)
            else:
                assert events[-1].HasField("end"), f"{task_id} ended with {events[-1]}"
        assert check_stream(events) == sim_text(7, 0, events[-1].end.tokens_out)
        return events[-1].SerializeToString()


async def insist(ask: Callable[[], Awaitable[Answer]], refused: Counter[str]) -> Answer:
    """Asks the same until the answer comes."""
    while True:
        try:
            return await ask()
        except Unavailable as error:
            refused[str(error.reason)] += 1
            await asyncio.sleep(_PAUSE_S)


@asynccontextmanager
async def faulty_system(folder: Path, orchestrator: FaultyOrchestrator) -> AsyncIterator[Burst]:
    await orchestrator.start_serving()
    try:
        async with (
            pool_manager_process(folder / "pool", orchestrator.address, sim=_SIM) as manager,
            open_channel(orchestrator.address) as channel,
        ):
            await manager.start()
            await manager.snapshot()
            burst = Burst(TaskServiceStub(channel))
            spec = model_pb2.ModelSpec(name="sim", source=f"file:{gguf(folder)}", slots=SLOTS, context=1024)
            catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
            request = catalog_service_pb2.RegisterModelRequest(model=spec)
            await insist(lambda: call(catalog.RegisterModel, request, timeout_s=_CALL_S), burst.refused)
            yield burst
    finally:
        await orchestrator.end()


async def check(burst: Burst, orchestrator: FaultyOrchestrator) -> None:
    """Each request is one task, whatever is asked, also after a last kill; and what stands in the database is that."""
    assert len(burst.task_ids) == len(burst.terminals) >= TASKS
    await orchestrator.kill()
    await orchestrator.start_serving()
    for task_id, terminal in burst.terminals.items():
        assert await burst.read(task_id) == terminal, f"{task_id} has another terminal than its reader has seen"
    page = await call(burst.stub.ListTasks, task_service_pb2.ListTasksRequest(page_size=1000), timeout_s=_CALL_S)
    listed = {found.task_id: found.state for found in page.tasks if found.task_id in burst.terminals}
    assert set(listed.values()) == {task_pb2.TASK_STATE_COMPLETED}
    await orchestrator.kill()
    store = open_sqlite(orchestrator.folder / "data")
    await store.begin_incarnation()
    kept = {found.request.request_id: found for found in await store.tasks()}
    count = len(await store.tasks())
    await store.close()
    assert count == len(burst.task_ids), "a request stands there twice, or a task that was refused"
    assert {request_id: found.request.task_id for request_id, found in kept.items()} == burst.task_ids
    assert all(found.ending is not None and found.ending.state is TaskState.COMPLETED for found in kept.values())


def ended_on_disk(folder: Path) -> set[str]:
    """Tasks whose end would be found after a power cut now."""
    with closing(sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True)) as connection:
        return {task_id for (task_id,) in connection.execute("select task_id from tasks where state is not null")}


@pytest.mark.timeout(240 + 2 * TASKS)
@pytest.mark.parametrize("share", [0.01, 0.2])
async def test_no_task_is_lost_or_done_twice_where_commits_fail_and_the_process_is_killed(
    tmp_path: Path, share: float
) -> None:
    chance = Random(round(share * 100))  # noqa: S311  a schedule, not a secret
    orchestrator = FaultyOrchestrator(tmp_path / "orchestrator", flags={"tasks_retained": 2 * TASKS})
    orchestrator.share = share
    async with faulty_system(tmp_path, orchestrator) as burst:
        running = asyncio.create_task(burst.run())
        try:
            kills = 0
            while kills < KILLS and not running.done():
                await asyncio.wait({running}, timeout=chance.uniform(0.2, 1.0))
                await orchestrator.kill()
                await orchestrator.start_serving()
                kills += 1
            await running
        finally:
            running.cancel()
        await check(burst, orchestrator)
    failed = {what: orchestrator.log().count(what) for what in ("group_not_written", "store_failed")}
    _log.info("store_faults", share=share, tasks=TASKS, kills=kills, failed=failed, refused=dict(burst.refused))
    assert kills


@pytest.mark.timeout(240 + 2 * TASKS)
async def test_no_task_is_lost_and_no_reader_hangs_where_the_disk_is_full_in_the_midst_of_commits(
    tmp_path: Path,
) -> None:
    """For a moment, for half a second, and until a reader of a task that ends meanwhile has been sent away."""
    folder = tmp_path / "orchestrator"
    shim = DiskShim(tmp_path, folder / "data")
    orchestrator = FaultyOrchestrator(folder, flags={"tasks_retained": 2 * TASKS}, environment=shim.environment())
    async with faulty_system(tmp_path, orchestrator) as burst:
        running = asyncio.create_task(burst.run())
        try:
            for full_for_s in FULL_FOR_S:
                done = len(burst.terminals)
                while len(burst.terminals) < min(TASKS, done + CLIENTS):
                    assert not running.done(), "the test came late: all tasks are done"
                    await asyncio.sleep(_PAUSE_S)
                shim.fill()
                await asyncio.sleep(full_for_s)
                shim.make_room()
            task_id = await burst.submit("held-up", HELD_UP_TOKENS)
            shim.fill()
            # Of the burst, all may be reading by now.
            late = asyncio.create_task(burst.submit("late", 1))
            began = asyncio.get_running_loop().time()
            assert not await burst.read(task_id, until=lambda: True), "a terminal was shown that the disk does not have"
            waited_s = asyncio.get_running_loop().time() - began
            shown = set(burst.terminals)
            assert shown <= ended_on_disk(folder / "data"), "terminals were shown that the disk does not have"
            shim.make_room()
            burst.terminals[task_id] = await burst.read(task_id)
            late_id = await late
            burst.terminals[late_id] = await burst.read(late_id)
            await running
        finally:
            shim.make_room()
            running.cancel()
        await check(burst, orchestrator)
    _log.info("disk_full", tasks=TASKS, refused=dict(burst.refused), a_reader_waited_s=round(waited_s, 1))
    assert burst.refused["STORE_FAILED"], "no submission met the full disk"
    assert waited_s <= HELD_UP_TOKENS / _SIM["decode_tokens_per_s"] + END_KEPT_WITHIN_S + SENT_AWAY_WITHIN_S
