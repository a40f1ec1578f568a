"""What is on its way to the store: which calls wait for it, and what happens when it can't be kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from llorch.background import TaskSupervisor
from llorch.errors import Reason, Unavailable
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.decision import DecisionRecord, Outcome
from orchestratord.core.facts.model import ModelRecord, SourceFacts
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.runtime.keeper import Keeper
from orchestratord.store.interface import Ending, RecordChange
from support.manual_clock import ManualClock
from support.memory_store import MemoryStore

REQUEST = TaskRequest("task-1", "coder", b"", "digest", 1, durable=True)
PROMISE = Promise(Fingerprint("9f86"), ("CUDA RTX 3090",), 4096)
FIRST, SECOND = ModelRecord("coder", at_ms=1), ModelRecord("coder", at_ms=2)
FULL = Unavailable(Reason.STORE_FAILED, "the disk is full")


class FullDisk(MemoryStore):
    """Refuses the next `failures` writes."""

    def __init__(self, failures: int = 1) -> None:
        super().__init__()
        self.failures = failures

    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        await self._fail()
        await super().save_task(request, accepted_at_ms)

    async def save_ending(self, task_id: str, ending: Ending) -> None:
        await self._fail()
        await super().save_ending(task_id, ending)

    async def save_promise(self, task_id: str, promise: Promise | None) -> None:
        await self._fail()
        await super().save_promise(task_id, promise)

    async def save_records(self, changes: Sequence[RecordChange]) -> None:
        await self._fail()
        await super().save_records(changes)

    async def _fail(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise FULL


@dataclass
class World:
    keeper: Keeper
    posted: list[events.Event]
    clock: ManualClock


@asynccontextmanager
async def keeping(store: MemoryStore) -> AsyncIterator[World]:
    posted: list[events.Event] = []
    clock = ManualClock()
    async with TaskSupervisor("test") as tasks:
        yield World(Keeper(store, posted.append, clock, tasks), posted, clock)


async def test_a_task_that_can_not_be_kept_is_refused_and_does_not_run_on() -> None:
    async with keeping(FullDisk()) as world:
        world.keeper.keep_task(REQUEST)
        with pytest.raises(Unavailable, match="the disk is full"):
            await world.keeper.wait_task_kept("task-1")
        assert world.posted == [events.TaskNotKept("task-1", "the disk is full")]


async def test_a_task_whose_submitter_went_away_fails_too_if_it_can_not_be_kept() -> None:
    async with keeping(FullDisk()) as world:
        world.keeper.keep_task(REQUEST)
        waiting = asyncio.create_task(world.keeper.wait_task_kept("task-1"))
        await asyncio.sleep(0)
        waiting.cancel()
        await world.keeper.finish()
        assert world.posted == [events.TaskNotKept("task-1", "the disk is full")]
        await world.keeper.wait_task_kept("task-1")  # forgotten, so the call returns at once


@pytest.mark.parametrize("failures", [0, 1])
async def test_the_end_of_a_task_is_shown_after_it_was_kept_and_also_if_it_can_not_be(failures: int) -> None:
    store = FullDisk(failures)
    async with keeping(store) as world:
        ending = Ending(TaskState.CANCELLED, Stopped(FinishReason.CANCELLED, 0, 0), b"", 1)
        world.keeper.keep_ending("task-1", ending)
        assert world.posted == []
        await world.keeper.finish()
        assert world.posted == [events.TerminalPersisted("task-1")]


@pytest.mark.req("ORCH-1038")
@pytest.mark.parametrize("failures", [0, 1])
async def test_a_promise_is_kept_with_its_task_and_one_that_can_not_be_fails_nothing(failures: int) -> None:
    store = FullDisk(0)
    async with keeping(store) as world:
        world.keeper.keep_task(REQUEST)
        await world.keeper.wait_task_kept("task-1")
        store.failures = failures
        world.keeper.keep_promise("task-1", PROMISE)
        await world.keeper.finish()
        assert [kept.promise for kept in await store.tasks()] == [None if failures else PROMISE]
        assert (world.posted, world.keeper.failures) == ([], failures)


async def test_a_change_is_waited_for_and_kept() -> None:
    store = FullDisk(0)
    async with keeping(store) as world:
        world.keeper.keep_record(effects.PersistRecord(None, FIRST))
        await world.keeper.wait_all_kept()
        assert await store.records() == [FIRST]
        assert world.posted == []


async def test_a_change_that_can_not_be_kept_is_undone_before_it_is_refused() -> None:
    async with keeping(FullDisk()) as world:
        world.keeper.keep_record(effects.PersistRecord(FIRST, SECOND))
        with pytest.raises(Unavailable, match="the disk is full"):
            await world.keeper.wait_all_kept()
        assert world.posted == [events.RecordNotKept(kept=FIRST, lost=SECOND)]


async def test_a_deletion_that_can_not_be_kept_is_undone() -> None:
    async with keeping(FullDisk()) as world:
        world.keeper.keep_record(effects.PersistRecord(FIRST, None))
        with pytest.raises(Unavailable):
            await world.keeper.wait_all_kept()
        assert world.posted == [events.RecordNotKept(kept=FIRST, lost=None)]


@pytest.mark.parametrize(
    ("failures", "undone"),
    [(1, []), (2, [events.RecordNotKept(kept=None, lost=SECOND)])],
    ids=["the first is lost", "both are lost"],
)
async def test_of_two_changes_at_once_the_later_decides_what_is_in_force(
    failures: int, undone: list[events.Event]
) -> None:
    async with keeping(FullDisk(failures)) as world:
        world.keeper.keep_record(effects.PersistRecord(None, FIRST))
        world.keeper.keep_record(effects.PersistRecord(FIRST, SECOND))
        with pytest.raises(Unavailable):
            await world.keeper.wait_all_kept()
        assert world.posted == undone


async def test_what_was_learnt_is_written_later_the_last_state_of_it_and_again_if_the_disk_was_full() -> None:
    store = FullDisk(1)
    async with keeping(store) as world:
        for size in (1, 2, 3):
            world.keeper.keep_record(effects.PersistRecord(None, SourceFacts("file:/a", size)))
        await world.keeper.wait_all_kept()
        assert await store.records() == []
        await world.keeper.write_lagging()
        assert (await store.records(), world.posted) == ([], [])
        world.keeper.keep_record(effects.PersistRecord(None, SourceFacts("file:/b", 4)))
        await world.keeper.write_lagging()
        assert await store.records() == [SourceFacts("file:/a", 3), SourceFacts("file:/b", 4)]


async def test_at_the_end_everything_gets_to_the_disk() -> None:
    store = FullDisk(0)
    async with keeping(store) as world:
        world.keeper.keep_task(REQUEST)
        world.keeper.keep_record(effects.PersistRecord(None, FIRST))
        world.keeper.keep_record(effects.PersistRecord(None, SourceFacts("file:/a", 1)))
        await world.keeper.finish()
    assert [kept.request for kept in await store.tasks()] == [REQUEST]
    assert await store.records() == [FIRST, SourceFacts("file:/a", 1)]


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    async def save_records(self, changes: Sequence[RecordChange]) -> None:
        self.written.extend(change.record.record_key for change in changes)


async def test_of_decisions_no_more_are_written_than_are_kept() -> None:
    store = CountingStore()
    async with keeping(store) as world:
        for number in range(1500):
            record = DecisionRecord(f"decision-{number}", "coder", Outcome.CHOSEN, number)
            world.keeper.keep_record(effects.PersistRecord(None, record))
        await world.keeper.write_lagging()
    assert store.written == [f"decision-{number}" for number in range(500, 1500)]
