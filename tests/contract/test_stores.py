"""One suite over every store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import (
    ChoiceEnd,
    RunResult,
    Stopped,
    TaskEnd,
    TaskError,
    TaskRequest,
    TaskState,
    Terminal,
)
from orchestratord.store import kinds, names
from orchestratord.store.interface import AuditEntry, Ending, KeptTask, Store
from orchestratord.store.kinds import Kind
from orchestratord.store.shape import Shape
from orchestratord.store.sqlite import open_sqlite
from support.memory_store import MemoryStore

Open = Callable[[], Awaitable[Store]]


@dataclass(frozen=True, slots=True)
class Pet:
    name: str
    age: int = 1

    @property
    def record_key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Walk:
    number: int

    @property
    def record_key(self) -> str:
        return f"walk-{self.number}"


KINDS = (Kind("pets", Pet), Kind("walks", Walk, keep_last=3))
SHAPES = (Shape(Pet, ("name", "age")), Shape(Walk, ("number",)))


@pytest.fixture(autouse=True)
def two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        monkeypatch.setitem(kinds.BY_TYPE, kind.type, kind)
        monkeypatch.setitem(kinds.BY_NAME, kind.name, kind)
    for shape in SHAPES:
        monkeypatch.setitem(names.BY_TYPE, shape.type, shape)


@pytest.fixture(params=["memory", "sqlite"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the same contents again and again, each time in a new life."""
    memory = MemoryStore()
    stores: list[Store] = []

    async def again() -> Store:
        store: Store = memory if request.param == "memory" else await asyncio.to_thread(open_sqlite, tmp_path)
        stores.append(store)
        await store.begin_incarnation()
        return store

    yield again
    for store in stores:
        await store.close()


def durable(task_id: str, **options: object) -> TaskRequest:
    return TaskRequest(task_id, "coder", b"\x00prompt\xff", "digest", 7, durable=True, **options)  # type: ignore[arg-type]  # tests name fields


def ended(terminal: Terminal, state: TaskState = TaskState.COMPLETED) -> Ending:
    return Ending(state, terminal, b"\x00output\xff", 2_000)


async def test_every_life_has_a_higher_epoch_of_the_same_cluster(opened: Open) -> None:
    first = await (await opened()).begin_incarnation()
    second = await (await opened()).begin_incarnation()
    assert second.cluster_id == first.cluster_id
    assert second.control_epoch > first.control_epoch >= 1


async def test_an_epoch_that_was_raised_is_above_both_and_stays(opened: Open) -> None:
    store = await opened()
    first = await store.begin_incarnation()
    raised = await store.raise_epoch(first.control_epoch + 40)
    assert (raised.cluster_id, raised.control_epoch) == (first.cluster_id, first.control_epoch + 41)
    again = await store.raise_epoch(1)
    assert again.control_epoch == raised.control_epoch + 1
    await store.save_task(durable("task-a"), 1)
    assert (await (await opened()).begin_incarnation()).control_epoch > again.control_epoch


@pytest.mark.req("ORCH-1009")
async def test_accepted_tasks_come_back_whole_and_in_their_order(opened: Open) -> None:
    store = await opened()
    tasks = [durable("task-b", deadline_s=2.5), durable("task-a", app="aider", request_id="r"), durable("task-c")]
    for number, task in enumerate(tasks):
        await store.save_task(task, 1_000 + number)
    assert await (await opened()).tasks() == [KeptTask(task, 1_000 + number) for number, task in enumerate(tasks)]


@pytest.mark.parametrize(
    "terminal",
    [
        TaskEnd(RunResult((ChoiceEnd(0, FinishReason.EOS, 3, "stop"),), 5, 3, 1, 20, b"\x01receipt"), 4, 9),
        TaskError(Reason.WORKER_LOST, "it’s gone", retry_after_ms=7),
        Stopped(FinishReason.CANCELLED, 1, 0),
    ],
    ids=lambda terminal: type(terminal).__name__,
)
async def test_a_task_comes_back_with_its_end(opened: Open, terminal: Terminal) -> None:
    store = await opened()
    await store.save_task(durable("task-1"), 1_000)
    await store.save_ending("task-1", ended(terminal))
    (kept,) = await (await opened()).tasks()
    assert kept.ending == ended(terminal)
    assert kept.request == replace(durable("task-1"), payload=b"")


async def test_a_later_end_of_a_task_takes_the_place_of_an_earlier_one(opened: Open) -> None:
    store = await opened()
    await store.save_task(durable("task-1"), 1_000)
    first = replace(ended(Stopped(FinishReason.CANCELLED, 1, 0)), output=b"the first words", log_epoch=1_000)
    last = ended(TaskEnd(RunResult((ChoiceEnd(0, FinishReason.CANCELLED, 3),), 5, 3), 4, 9))
    await store.save_ending("task-1", first)
    await store.save_ending("task-1", last)
    (kept,) = await (await opened()).tasks()
    assert kept.ending == last


@pytest.mark.req("ORCH-1038")
async def test_a_task_comes_back_with_what_it_has_promised_last(opened: Open) -> None:
    promise = Promise(Fingerprint("9f86", ("RTX 3090",)), ("CUDA RTX 3090",), 4096)
    store = await opened()
    for name in ("task-1", "task-2", "task-3"):
        await store.save_task(durable(name, deterministic=True), 1_000)
    await store.save_promise("task-1", Promise(Fingerprint()))
    await store.save_promise("task-1", promise)
    await store.save_promise("task-2", promise)
    await store.save_promise("task-2", None)
    await store.save_promise("never was", promise)
    kept = await (await opened()).tasks()
    assert [task.promise for task in kept] == [promise, None, None]
    assert kept[0].promise is not None
    assert kept[0].promise.fingerprint.words == ("RTX 3090",)


async def test_a_forgotten_task_is_gone(opened: Open) -> None:
    store = await opened()
    await store.save_task(durable("task-1"), 1_000)
    await store.forget_task("task-1")
    await store.forget_task("task-1")
    await store.save_ending("task-1", ended(Stopped(FinishReason.CANCELLED, 0, 0)))
    assert await (await opened()).tasks() == []


async def test_a_record_is_what_it_was_changed_to_last(opened: Open) -> None:
    store = await opened()
    young, old, other = Pet("rex"), Pet("rex", 9), Pet("ada")
    await store.save_records([RecordChange(None, young), RecordChange(None, other)])
    await store.save_records([RecordChange(young, old)])
    store = await opened()
    assert await store.records() == [other, old]
    await store.save_records([RecordChange(other, None), RecordChange(Pet("never was"), None)])
    assert await (await opened()).records() == [old]


async def test_of_a_bounded_kind_the_newest_are_kept_in_their_order(opened: Open) -> None:
    store = await opened()
    for number in range(10, 4, -1):
        await store.save_records([RecordChange(None, Walk(number)), RecordChange(None, Pet("rex"))])
    assert await (await opened()).records() == [Pet("rex"), Walk(7), Walk(6), Walk(5)]


@pytest.mark.req("ORCH-1032")
async def test_a_change_and_who_asked_for_it_are_kept_together(opened: Open) -> None:
    store = await opened()
    entry = AuditEntry(1, "localhost", "corr", "pet.added", "{}", "done")
    await store.save_records([RecordChange(None, Pet("rex"))], entry)
    again = await opened()
    assert await again.records() == [Pet("rex")]
    assert [noted.action for noted in await again.audit(None, 10)] == ["pet.added"]


@pytest.mark.req("ORCH-1032")
async def test_the_audit_log_grows_and_is_read_from_its_end(opened: Open) -> None:
    store = await opened()
    for number in range(5):
        await store.append_audit(AuditEntry(number, "localhost", "corr", f"action-{number}", "{}", "done"))
    store = await opened()
    newest = await store.audit(None, 2)
    assert [entry.action for entry in newest] == ["action-4", "action-3"]
    assert [entry.action for entry in await store.audit(newest[-1].seq, 10)] == ["action-2", "action-1", "action-0"]


async def test_what_is_asked_for_at_once_takes_effect_in_its_order(opened: Open) -> None:
    store = await opened()
    pets = [Pet("rex", age) for age in range(300)]
    async with asyncio.TaskGroup() as together:
        for before, after in zip([None, *pets], pets, strict=False):
            together.create_task(store.save_records([RecordChange(before, after)]))
    assert await store.records() == [pets[-1]]


async def test_closing_keeps_what_was_asked_for_before(opened: Open) -> None:
    store = await opened()
    saving = asyncio.create_task(store.save_task(durable("task-1"), 1_000))
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    await saving
    assert len(await (await opened()).tasks()) == 1
