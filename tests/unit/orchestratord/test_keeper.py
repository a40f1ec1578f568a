"""What is on its way to the store: which calls wait for it, and what happens when it can't be kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from llorch.background import TaskSupervisor
from llorch.errors import Reason, ResourceExhausted, Unavailable
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.decision import DecisionRecord, Outcome
from orchestratord.core.facts.model import ModelRecord, SourceFacts
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.runtime import keeper as keeper_module
from orchestratord.runtime import kept_ends
from orchestratord.runtime.keeper import Keeper
from orchestratord.store.interface import AuditEntry, Ending
from support.manual_clock import ManualClock
from support.memory_store import FullDisk, MemoryStore

REQUEST = TaskRequest("task-1", "coder", b"", "digest", 1, durable=True)
PROMISE = Promise(Fingerprint("9f86"), ("CUDA RTX 3090",), 4096)
STOPPED = Ending(TaskState.CANCELLED, Stopped(FinishReason.CANCELLED, 0, 0), b"", 1)
FIRST, SECOND = ModelRecord("coder", at_ms=1), ModelRecord("coder", at_ms=2)


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


async def kept(world: World) -> None:
    world.keeper.keep_task(REQUEST)
    await world.keeper.wait_task_kept("task-1")
    world.posted.clear()


async def test_a_task_that_can_not_be_kept_is_refused_and_does_not_run_on() -> None:
    async with keeping(FullDisk()) as world:
        world.keeper.keep_task(REQUEST)
        with pytest.raises(Unavailable, match="the disk is full"):
            await world.keeper.wait_task_kept("task-1")
        assert world.posted == [events.TaskNotKept("task-1", "the disk is full")]


class FullStore(MemoryStore):
    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        raise ResourceExhausted(Reason.STORE_FULL, "the store is full", retry_after_ms=5)


async def test_a_task_that_has_no_room_is_refused_with_that_reason() -> None:
    async with keeping(FullStore()) as world:
        world.keeper.keep_task(REQUEST)
        with pytest.raises(ResourceExhausted) as refused:
            await world.keeper.wait_task_kept("task-1")
        assert refused.value.reason is Reason.STORE_FULL
        assert world.posted == [events.TaskNotKept("task-1", "the store is full", Reason.STORE_FULL)]


async def test_a_task_whose_submitter_went_away_fails_too_if_it_can_not_be_kept() -> None:
    async with keeping(FullDisk()) as world:
        world.keeper.keep_task(REQUEST)
        waiting = asyncio.create_task(world.keeper.wait_task_kept("task-1"))
        await asyncio.sleep(0)
        waiting.cancel()
        await world.keeper.finish()
        assert world.posted == [events.TaskNotKept("task-1", "the disk is full")]
        await world.keeper.wait_task_kept("task-1")  # forgotten, so the call returns at once


async def test_who_submitted_a_task_hears_of_it_before_its_run_begins() -> None:
    order: list[str] = []

    def begin_run(event: events.Event) -> None:
        asyncio.get_running_loop().call_soon(order.append, "run")

    async with TaskSupervisor("test") as tasks:
        keeper = Keeper(MemoryStore(), begin_run, ManualClock(), tasks)
        keeper.keep_task(REQUEST)
        await keeper.wait_task_kept("task-1")
        order.append("answer")
        await asyncio.sleep(0)
    assert order == ["answer", "run"]


class HungDisk(MemoryStore):
    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("after_s", [0, 0.01], ids=["before it has begun", "while it is written"])
async def test_a_task_is_not_acknowledged_that_there_was_no_time_to_keep(after_s: float) -> None:
    async def submit(keeper: Keeper) -> Reason:
        keeper.keep_task(REQUEST)
        with pytest.raises(Unavailable, match="submit it again") as refused:
            await keeper.wait_task_kept("task-1")
        return refused.value.reason

    async with asyncio.timeout(5), asyncio.TaskGroup() as callers, keeping(HungDisk()) as world:
        submitted = callers.create_task(submit(world.keeper))
        await asyncio.sleep(after_s)
    assert submitted.result() is Reason.DRAINING


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(kept_ends, pause, 0.01)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("failures", [0, 1, 5])
async def test_the_end_of_a_task_is_shown_once_it_is_kept_however_often_that_is_tried(failures: int) -> None:
    store = FullDisk(0)
    async with keeping(store) as world:
        await kept(world)
        store.failures = failures
        world.keeper.keep_ending("task-1", STOPPED)
        assert world.posted == []
        await world.keeper.finish()
        assert world.posted == [events.TerminalPersisted("task-1")]
        assert world.keeper.failures == failures
        assert [task.ending for task in await store.tasks()] == [STOPPED]


async def test_a_caller_is_told_of_an_end_that_can_not_be_kept_and_it_is_tried_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_ends, "ANSWERED_WITHIN_S", 0.05)
    store = FullDisk(0)
    async with keeping(store) as world:
        await kept(world)
        store.failures = 1
        world.keeper.keep_ending("task-1", STOPPED)
        with pytest.raises(Unavailable, match="has ended, and") as told:
            await world.keeper.wait_end_kept("task-1")
        assert (told.value.reason, told.value.retry_after_ms) == (Reason.STORE_FAILED, 1000)
        assert world.posted == []
        await world.keeper.finish()
        assert world.posted == [events.TerminalPersisted("task-1")]


class OneIsTooLarge(MemoryStore):
    async def save_ending(self, task_id: str, ending: Ending) -> None:
        if task_id == "task-0":
            raise Unavailable(Reason.STORE_FAILED, "the disk is full")
        await self._may_fail()
        await super().save_ending(task_id, ending)

    async def _may_fail(self) -> None:
        self.failures = getattr(self, "failures", 20) - 1
        if self.failures >= 0:
            raise Unavailable(Reason.STORE_FAILED, "the disk is full")


@pytest.mark.usefixtures("no_pauses")
async def test_an_end_that_can_never_be_kept_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_ends, "_TRIED_AT_ONCE", 1)
    others = {f"task-{number}" for number in range(1, 6)}
    async with keeping(OneIsTooLarge()) as world:
        for task_id in ("task-0", *sorted(others)):
            world.keeper.keep_ending(task_id, STOPPED)
        async with asyncio.timeout(10):
            for task_id in others:
                await world.keeper.wait_end_kept(task_id)
        assert {event.task_id for event in world.posted if isinstance(event, events.TerminalPersisted)} == others


class InDoubt(MemoryStore):
    """Of the next writes of tasks, it keeps those that it says have failed."""

    def __init__(self) -> None:
        super().__init__()
        self.lies = 1
        self.is_down = False

    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        await asyncio.sleep(0)
        await super().save_task(request, accepted_at_ms)
        self.lies -= 1
        if self.lies >= 0:
            raise Unavailable(Reason.STORE_FAILED, "the disk has failed")

    async def forget_task(self, task_id: str) -> None:
        if self.is_down:
            raise Unavailable(Reason.STORE_FAILED, "the disk has failed")
        await super().forget_task(task_id)


@pytest.mark.usefixtures("no_pauses")
async def test_a_task_that_was_refused_and_is_there_all_the_same_is_taken_back_before_its_end_is_shown() -> None:
    store = InDoubt()
    async with keeping(store) as world:
        world.keeper.keep_task(REQUEST)
        with pytest.raises(Unavailable):
            await world.keeper.wait_task_kept("task-1")
        store.is_down = True
        world.keeper.keep_ending("task-1", STOPPED)
        await asyncio.sleep(0.1)
        assert world.posted == [events.TaskNotKept("task-1", "the disk has failed")]
        store.is_down = False
        await world.keeper.finish()
        assert world.posted[1:] == [events.TerminalPersisted("task-1")]
        assert await store.tasks() == []


@pytest.mark.usefixtures("no_pauses")
async def test_a_request_that_was_refused_is_one_task_when_it_comes_again() -> None:
    """The first one stands in the store, and can't be taken back for a while."""
    store = InDoubt()
    first, second = (replace(REQUEST, task_id=f"task-{number}", request_id="r1") for number in (1, 2))
    async with keeping(store) as world:
        for request, answer in ((first, events.TaskNotKept), (second, events.TaskNotKept)):
            world.keeper.keep_task(request)
            with pytest.raises(Unavailable):
                await world.keeper.wait_task_kept(request.task_id)
            assert isinstance(world.posted[-1], answer)
            store.is_down = True
            world.keeper.keep_ending(request.task_id, STOPPED)
        assert [task.request for task in await store.tasks()] == [first]
        store.is_down = False
        third = replace(second, task_id="task-3")
        world.keeper.keep_task(third)
        await world.keeper.wait_task_kept("task-3")
        assert [task.request for task in await store.tasks()] == [third]
        await world.keeper.finish()
        assert [task.request for task in await store.tasks()] == [third]


async def test_while_very_many_may_stand_in_a_store_that_fails_it_is_asked_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper_module, "MOST_IN_DOUBT", 2)
    store = InDoubt()
    store.lies, store.is_down = 9, True
    requests = [replace(REQUEST, task_id=f"task-{number}") for number in range(5)]
    async with keeping(store) as world:
        for request in requests:
            world.keeper.keep_task(request)
            with pytest.raises(Unavailable):
                await world.keeper.wait_task_kept(request.task_id)
            world.keeper.keep_ending(request.task_id, STOPPED)
        assert len(await store.tasks()) == 2
        store.is_down = False
        await world.keeper.finish()
        assert await store.tasks() == []
        world.keeper.keep_task(replace(REQUEST, task_id="task-9"))
        store.lies = 0
        await world.keeper.wait_task_kept("task-9")


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("failures", [0, 1])
async def test_that_a_task_was_stopped_is_kept_before_a_caller_is_told_and_shown_with_its_whole_end(
    failures: int,
) -> None:
    store = FullDisk(0)
    async with keeping(store) as world:
        await kept(world)
        store.failures = failures
        world.keeper.keep_stop("task-1", STOPPED)
        await world.keeper.wait_end_kept("task-1")
        assert [kept.ending for kept in await store.tasks()] == [STOPPED]
        assert (world.posted, world.keeper.failures) == ([], failures)
        whole = replace(STOPPED, output=b"output", log_epoch=2)
        world.keeper.keep_ending("task-1", whole)
        await world.keeper.wait_end_kept("task-1")
        await world.keeper.wait_end_kept("task-1")  # forgotten, so the call returns at once
        assert [kept.ending for kept in await store.tasks()] == [whole]
        assert world.posted == [events.TerminalPersisted("task-1")]


@pytest.mark.req("ORCH-1038")
@pytest.mark.parametrize("failures", [0, 1])
async def test_a_promise_is_kept_with_its_task_and_one_that_can_not_be_fails_nothing(failures: int) -> None:
    store = FullDisk(0)
    async with keeping(store) as world:
        await kept(world)
        store.failures = failures
        world.keeper.keep_promise("task-1", PROMISE)
        await world.keeper.finish()
        assert [kept.promise for kept in await store.tasks()] == [None if failures else PROMISE]
        assert (world.posted, world.keeper.failures) == ([], failures)


CHANGE = effects.PersistChange((RecordChange(None, FIRST), RecordChange(None, App("aider"))))


@pytest.mark.parametrize("failures", [0, 1])
async def test_the_brain_is_told_of_a_change_before_its_caller_is(failures: int) -> None:
    store = FullDisk(failures)
    async with keeping(store) as world:
        world.keeper.keep_change(CHANGE)
        assert world.posted == []
        under_way = world.keeper.change_under_way
        assert under_way is not None
        error = await under_way
        assert world.posted == [events.ChangeNotKept() if failures else events.ChangeKept()]
        assert (error is None) is (failures == 0)
        assert world.keeper.change_under_way is None
        assert await store.records() == ([] if failures else [App("aider"), FIRST]), "all of it, or nothing"


class KeepsWhatItRefuses(MemoryStore):
    refuses = True

    async def save_records(self, changes: Sequence[RecordChange], audit: AuditEntry | None = None) -> None:
        await super().save_records(changes, audit)
        if self.refuses:
            raise Unavailable(Reason.STORE_FAILED, "the disk has failed")


async def test_a_change_that_was_refused_and_is_there_all_the_same_is_taken_back() -> None:
    store = KeepsWhatItRefuses()
    async with keeping(store) as world:
        await MemoryStore.save_records(store, [RecordChange(None, FIRST)])
        change = effects.PersistChange((RecordChange(FIRST, SECOND), RecordChange(None, App("aider"))))
        world.keeper.keep_change(change)
        assert world.keeper.change_under_way is not None
        assert await world.keeper.change_under_way is not None
        assert await store.records() == [App("aider"), SECOND]
        store.refuses = False
        await world.keeper.finish()
        assert await store.records() == [FIRST]


async def test_what_no_caller_waits_for_is_kept_too_and_said_again_at_the_next_start_if_not() -> None:
    store = FullDisk(1)
    async with keeping(store) as world:
        for record in (FIRST, SECOND):
            world.keeper.keep_record(effects.PersistRecord(None, record))
        await world.keeper.finish()
        assert await store.records() == [SECOND]
        assert (world.posted, world.keeper.failures) == ([], 1)


async def test_what_was_learnt_is_written_later_the_last_state_of_it_and_again_if_the_disk_was_full() -> None:
    store = FullDisk(1)
    async with keeping(store) as world:
        for size in (1, 2, 3):
            world.keeper.keep_record(effects.PersistRecord(None, SourceFacts("file:/a", size)))
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

    async def save_records(self, changes: Sequence[RecordChange], audit: AuditEntry | None = None) -> None:
        self.written.extend(change.record.record_key for change in changes)


async def test_of_decisions_no_more_are_written_than_are_kept() -> None:
    store = CountingStore()
    async with keeping(store) as world:
        for number in range(1500):
            record = DecisionRecord(f"decision-{number}", "coder", Outcome.CHOSEN, number)
            world.keeper.keep_record(effects.PersistRecord(None, record))
        await world.keeper.write_lagging()
    assert store.written == [f"decision-{number}" for number in range(500, 1500)]


async def test_what_lags_behind_a_full_disk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is written once there is room again."""
    monkeypatch.setattr(keeper_module, "MOST_LAGGING", 5)
    store = FullDisk(1)
    async with keeping(store) as world:
        for number in range(4):
            world.keeper.keep_record(effects.PersistRecord(None, SourceFacts(f"file:/{number}.gguf", number)))
        await world.keeper.write_lagging()
        for number in range(4, 8):
            world.keeper.keep_record(effects.PersistRecord(None, SourceFacts(f"file:/{number}.gguf", number)))
        await world.keeper.write_lagging()
        assert [record.record_key for record in await store.records()] == [
            f"file:/{number}.gguf" for number in range(3, 8)
        ]
