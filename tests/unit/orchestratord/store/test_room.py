"""The size of the file: it has a limit, and gives space back."""

import asyncio
import base64
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from llorch.errors import FailedPrecondition, Reason, ResourceExhausted, Unavailable
from llorch.finish_reason import FinishReason
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.store import migrate, sql, sqlite, writer
from orchestratord.store.interface import AuditEntry, Ending
from orchestratord.store.sql import SqlStore
from orchestratord.store.sqlite import FILE, open_sqlite

MIB = 2**20
ENDING = Ending(TaskState.CANCELLED, Stopped(FinishReason.CANCELLED, 0, 0), b"output", 1)
ENTRY = AuditEntry(1, "localhost", "", "x", "{}", "done")


def task(number: int, payload_bytes: int = MIB) -> TaskRequest:
    return TaskRequest(f"task-{number}", "coder", os.urandom(payload_bytes), "digest", 1, durable=True)


@asynccontextmanager
async def opened(folder: Path, limit_mib: int = 1024, output_mib: int = 192) -> AsyncIterator[SqlStore]:
    store = await asyncio.to_thread(open_sqlite, folder, limit_mib, output_mib)
    try:
        await store.begin_incarnation()
        yield store
    finally:
        await store.close()


def size_of(folder: Path) -> int:
    """With the write-ahead log."""
    return sum(file.stat().st_size for file in folder.glob(f"{FILE}*"))


def copies_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".before-" in path.name]


async def until(holds: Callable[[], bool]) -> None:
    """What the writer does when it has nothing else to do, no call tells."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_space_comes_back_when_tasks_have_ended(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(80):
            await store.save_task(task(number), 1)
        assert size_of(tmp_path) > 80 * MIB
        await asyncio.gather(*(store.save_ending(f"task-{number}", ENDING) for number in range(80)))
        await until(lambda: size_of(tmp_path) < 24 * MIB)
        assert [kept.ending for kept in await store.tasks()] == [ENDING] * 80


@pytest.mark.parametrize("live", [1, 70])
async def test_a_file_of_an_earlier_release_learns_to_give_space_back(tmp_path: Path, live: int) -> None:
    async with opened(tmp_path) as store:
        for number in range(live):
            await store.save_task(task(number), 1)
        before = await store.tasks()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as old:
        for statement in ("PRAGMA auto_vacuum = NONE", "VACUUM"):
            old.execute(statement)
        assert old.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    async with opened(tmp_path) as store:
        assert await store.tasks() == before
    with closing(sqlite3.connect(tmp_path / FILE)) as again:
        assert again.execute("PRAGMA auto_vacuum").fetchone() == (2,)


async def test_a_file_that_can_not_be_rebuilt_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as old:
        old.execute("CREATE TABLE is_not_empty (id INTEGER)")

    class FullDisk:
        def __init__(self, driver: sqlite3.Connection) -> None:
            self._driver = driver

        def execute(self, statement: str) -> sqlite3.Cursor:
            if statement == "VACUUM":
                raise sqlite3.OperationalError("database or disk is full")
            return self._driver.execute(statement)

    driver_of = sqlite._driver
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_driver", lambda pooled: FullDisk(driver_of(pooled)))
        store = await asyncio.to_thread(open_sqlite, tmp_path)
    await store.begin_incarnation()
    await store.save_task(task(1), 1)
    await store.forget_task("task-1")
    assert await store.tasks() == []
    await store.close()
    with closing(sqlite3.connect(tmp_path / FILE)) as again:
        assert again.execute("PRAGMA auto_vacuum").fetchone() == (0,)


async def test_a_full_store_takes_no_more_tasks_and_all_else(tmp_path: Path) -> None:
    async with opened(tmp_path, limit_mib=16) as store:
        asked = await asyncio.gather(
            *(store.save_task(task(number), 1) for number in range(17)), return_exceptions=True
        )
        accepted = asked.count(None)
        with pytest.raises(ResourceExhausted, match="raise database_mib") as refused:
            await store.save_task(task(17), 1)
        assert refused.value.reason is Reason.STORE_FULL
        assert refused.value.retry_after_ms
        assert 13 <= accepted <= 16
        assert len(await store.tasks()) == accepted
        await store.save_records([RecordChange(None, App("aider"))], ENTRY)
        await store.save_task(task(99, payload_bytes=10), 1)
        await store.save_ending("task-0", replace(ENDING, output=bytes(MIB // 2)))
        for number in range(1, 4):
            await store.forget_task(f"task-{number}")
        await store.save_task(task(100), 1)


async def test_in_a_full_store_there_is_room_for_the_outputs_of_all_that_runs(tmp_path: Path) -> None:
    async with opened(tmp_path, limit_mib=16, output_mib=32) as store:
        for number in range(16):
            await store.save_task(task(number, MIB - 40_000), 1)
        for number in range(16, 80):
            await store.save_task(task(number, 10), 1)
        with pytest.raises(ResourceExhausted):
            await store.save_task(task(80), 1)
        endings = {number: replace(ENDING, output=os.urandom(MIB // 2)) for number in range(16, 80)}
        await asyncio.gather(*(store.save_ending(f"task-{number}", ending) for number, ending in endings.items()))
        await store.save_records([RecordChange(None, App("aider"))], ENTRY)
        assert [kept.ending for kept in await store.tasks()] == [None] * 16 + list(endings.values())
        with pytest.raises(Unavailable, match="raise database_mib") as refused:
            await store.save_ending("task-0", replace(ENDING, output=os.urandom(20 * MIB)))
        assert refused.value.reason is Reason.STORE_FAILED


@pytest.mark.parametrize("is_ended", [False, True])
async def test_a_full_file_of_an_earlier_release_is_brought_up_to_date_however_large(
    tmp_path: Path, is_ended: bool
) -> None:
    """It knew no limit, and payloads are moved one beside the other."""
    with closing(sqlite3.connect(tmp_path / FILE)) as old:
        old.executescript((Path(__file__).parent / "databases" / "0004.4.sql").read_text())
        rows = old.execute("SELECT state IS NOT NULL, task_id, request FROM tasks").fetchall()
        _, like, request = next(row for row in rows if row[0] == is_ended)
        for number in range(32):
            payload = base64.b64encode(os.urandom(MIB)).decode()
            name = f"task-large-{number}"
            body = json.dumps({**json.loads(request), "payload": payload, "task_id": name, "request_id": ""})
            old.execute(
                "INSERT INTO tasks (task_id, request, accepted_at_ms, state, terminal, output, ended_at_ms, log_epoch) "
                "SELECT ?, ?, accepted_at_ms, state, terminal, output, ended_at_ms, log_epoch FROM tasks "
                "WHERE task_id = ?",
                (name, body, like),
            )
        old.commit()
    async with opened(tmp_path, limit_mib=16, output_mib=16) as store:
        large = [kept for kept in await store.tasks() if kept.request.task_id.startswith("task-large-")]
        assert [len(kept.request.payload) for kept in large] == [0 if is_ended else MIB] * 32


def test_a_start_on_a_full_disk_is_told_to_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_engine: object, _back_up: object) -> None:
        cause = sqlite3.OperationalError("database or disk is full")
        cause.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise SQLAlchemyError from cause

    monkeypatch.setattr(migrate, "bring_up_to_date", fail)
    with pytest.raises(FailedPrecondition, match="make room on its disk") as refused:
        open_sqlite(tmp_path)
    assert "move it away" not in refused.value.message


async def test_tasks_beside_one_that_does_not_fit_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, limit_mib=16) as store:
        sizes = (100, 20 * MIB, 100)
        outcomes = await asyncio.gather(
            *(store.save_task(task(number, size), 1) for number, size in enumerate(sizes)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), ResourceExhausted, type(None)]
        assert [kept.request.task_id for kept in await store.tasks()] == ["task-0", "task-2"]


async def test_long_prompts_are_not_written_in_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LARGEST_GROUP_BYTES", 2 * MIB)
    groups: list[int] = []
    carry_out = writer.Writer._carry_out

    def noting(self: writer.Writer, group: list[Any]) -> list[Any]:
        outcomes = carry_out(self, group)
        groups.append(len(group))  # what is asked for until it is committed goes with it
        return outcomes

    monkeypatch.setattr(writer.Writer, "_carry_out", noting)
    async with opened(tmp_path) as store:
        await asyncio.gather(*(store.save_task(task(number), 1) for number in range(12)))
        await asyncio.gather(*(store.save_ending(f"task-{number}", ENDING) for number in range(12)))
    assert sum(groups) == 1 + 24
    assert max(groups) <= 2


async def test_of_the_audit_log_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "AUDIT_KEPT", 5)
    async with opened(tmp_path) as store:
        for number in range(12):
            await store.append_audit(replace(ENTRY, at_ms=number))
        assert [entry.at_ms for entry in await store.audit(None, 100)] == [11, 10, 9, 8, 7]


async def test_of_copies_the_newest_is_kept(tmp_path: Path) -> None:
    older = tmp_path / f"{FILE}.before-0003.3"
    older.touch()
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("UPDATE record_format SET number = 3")
        connection.commit()
    async with opened(tmp_path):
        pass
    assert copies_in(tmp_path) == [f"{FILE}.before-{migrate.version()}"]
