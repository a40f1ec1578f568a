"""A write that failed may have been done: it is made again, and kept once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from llorch.errors import Reason, Unavailable
from llorch.finish_reason import FinishReason
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.decision import DecisionRecord, Outcome
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.store.interface import AuditEntry, Ending
from orchestratord.store.sql import SqlStore
from orchestratord.store.sqlite import open_sqlite
from support.store_faults import Commit, faulty

pytestmark = pytest.mark.req("ORCH-1009")

TASKS = tuple(TaskRequest(f"task-{number}", "coder", b"prompt", "digest", 1, durable=True) for number in range(4))
ENDING = Ending(TaskState.CANCELLED, Stopped(FinishReason.CANCELLED, 0, 0), b"output", 1)
RECORDS: tuple[Record, ...] = (App("aider"), DecisionRecord("decision-1", "coder", Outcome.CHOSEN, 1))


class Plan:
    """What happens to the commits that come; a test changes it. While `goes_on` is not set, the next one waits."""

    def __init__(self) -> None:
        self.commits: Iterator[Commit] = iter(())
        self.goes_on = threading.Event()
        self.goes_on.set()

    def next(self) -> Commit:
        assert self.goes_on.wait(timeout=10)
        return next(self.commits, Commit.DONE)

    def fail(self, *commits: Commit) -> None:
        self.commits = iter(commits)


@pytest.fixture
def plan() -> Plan:
    return Plan()


@pytest.fixture
async def store(tmp_path: Path, plan: Plan) -> SqlStore:
    opened = faulty(open_sqlite(tmp_path), plan.next)
    await opened.begin_incarnation()
    return opened


@pytest.mark.parametrize("how", [Commit.FAILS, Commit.FAILS_WHEN_DONE])
async def test_what_failed_is_done_again_and_once(store: SqlStore, plan: Plan, how: Commit) -> None:
    changes = [RecordChange(None, record) for record in RECORDS]
    entry = AuditEntry(1, "localhost", "", "x", "{}", "done")

    async def write_all() -> None:
        await store.save_task(TASKS[0], 5)
        await store.save_task(TASKS[1], 5)
        await store.save_records(changes)
        await store.save_ending(TASKS[0].task_id, ENDING)

    await write_all()
    expected = await store.tasks(), await store.records()
    calls: tuple[Callable[[], Awaitable[None]], ...] = (
        partial(store.save_task, TASKS[2], 5),
        partial(store.save_records, changes),
        partial(store.save_ending, TASKS[0].task_id, ENDING),
        partial(store.forget_task, TASKS[2].task_id),
    )
    for call in calls:
        plan.fail(how)
        with pytest.raises(Unavailable) as failed:
            await call()
        assert failed.value.reason is Reason.STORE_FAILED
        await call()
    assert (await store.tasks(), await store.records()) == expected
    await store.append_audit(entry)
    assert await store.audit(None, 9) == [replace(entry, seq=1)]
    await store.close()


@pytest.mark.parametrize("how", [Commit.FAILS, Commit.FAILS_WHEN_DONE])
async def test_a_group_that_failed_is_done_one_by_one_in_order_and_each_once(
    store: SqlStore, plan: Plan, how: Commit
) -> None:
    """The callers hear nothing of it. The clock goes backwards meanwhile."""
    entries = [AuditEntry(1, "localhost", "", f"x{number}", "{}", "done") for number in range(3)]
    plan.goes_on.clear()
    first = asyncio.create_task(store.save_task(replace(TASKS[0], task_id="task-first"), 99))
    await asyncio.sleep(0.05)  # it is alone in its group, and the others come while that is under way
    plan.fail(Commit.DONE, how)
    writes = [store.save_task(task, 9 - number) for number, task in enumerate(TASKS)]
    audits = [store.append_audit(entry) for entry in entries]
    change = store.save_records([RecordChange(None, RECORDS[0])], AuditEntry(1, "localhost", "", "y", "{}", "done"))
    others = asyncio.gather(*writes, *audits, change)
    await asyncio.sleep(0)
    plan.goes_on.set()
    await asyncio.gather(first, others)
    assert [kept.request for kept in await store.tasks()][1:] == list(TASKS)
    assert [entry.action for entry in await store.audit(None, 99)] == ["y", "x2", "x1", "x0"]
    assert await store.records() == [RECORDS[0]]
    await store.close()


@pytest.mark.parametrize("how", [Commit.FAILS, Commit.FAILS_WHEN_DONE])
async def test_an_epoch_that_perhaps_has_risen_does_not_lock_its_orchestrator_out(
    store: SqlStore, plan: Plan, how: Commit
) -> None:
    plan.fail(how)
    with pytest.raises(Unavailable):
        await store.raise_epoch(7)
    await store.save_task(TASKS[0], 1)
    assert (await store.raise_epoch(7)).control_epoch > 7
    await store.save_task(TASKS[1], 1)
    await store.close()


async def test_tasks_come_back_in_the_order_in_which_they_were_accepted_whatever_the_clock_said(tmp_path: Path) -> None:
    first = open_sqlite(tmp_path)
    await first.begin_incarnation()
    for task, at_ms in zip(TASKS, (300, 300, 100, 200), strict=True):
        await first.save_task(task, at_ms)
    await first.save_task(TASKS[1], 50)  # as a write that is made again
    await first.forget_task(TASKS[3].task_id)
    await first.save_task(TASKS[3], 10)
    await first.close()
    second = open_sqlite(tmp_path)
    await second.begin_incarnation()
    assert [kept.request for kept in await second.tasks()] == list(TASKS)
    await second.close()
