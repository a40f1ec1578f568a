"""What the file on disk adds to the contract of stores: migrations, fencing, full disks."""

import asyncio
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import CreateTable

from llorch.errors import FailedPrecondition, Reason, Unavailable
from llorch.finish_reason import FinishReason
from orchestratord.core.facts.decision import DecisionRecord, Outcome
from orchestratord.core.facts.model import ModelRecord
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.store import migrate, schema, sql
from orchestratord.store.interface import AuditEntry, Ending
from orchestratord.store.sqlite import FILE, open_sqlite

TASK = TaskRequest("task-1", "coder", b"a secret prompt", "digest", 1, durable=True)
ENDING = Ending(TaskState.CANCELLED, Stopped(FinishReason.CANCELLED, 0, 0), b"", 1)
ENTRY = AuditEntry(1, "localhost", "", "x", "{}", "done")


def test_the_steps_lead_to_the_tables_that_a_new_database_gets(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'stepped.db'}")
    with engine.begin() as connection:
        migrate.take_steps(connection)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        stepped = _statements(connection)
    engine.dispose()
    open_sqlite(tmp_path)
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / FILE}")
    with engine.connect() as connection:
        assert _statements(connection) == stepped
    engine.dispose()
    assert ScriptDirectory(str(migrate.MIGRATIONS)).get_heads() == [schema.REVISION]


@pytest.mark.parametrize("newer", ["alembic_version SET version_num = '9999'", "record_format SET number = 9999"])
def test_a_database_of_a_newer_release_is_refused_with_what_to_do(tmp_path: Path, newer: str) -> None:
    _change(tmp_path, newer)
    with pytest.raises(FailedPrecondition, match="newer release") as refused:
        open_sqlite(tmp_path)
    assert refused.value.reason is Reason.VERSION_SKEW


def test_a_database_is_copied_before_it_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(tmp_path, "alembic_version SET version_num = '0001'")
    monkeypatch.setattr(migrate, "take_steps", _fails)
    with pytest.raises(RuntimeError):
        open_sqlite(tmp_path)
    copy = tmp_path / f"{FILE}.before-{migrate.version()}"
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    assert copy.stat().st_mode & 0o077 == 0


def test_a_damaged_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database, " * 100)
    with pytest.raises(FailedPrecondition, match="file is not a database; bring back a copy") as refused:
        open_sqlite(tmp_path)
    assert refused.value.reason is Reason.STORE_FAILED


async def test_what_people_have_set_is_not_passed_over_if_it_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        FailedPrecondition, match=r"has models 'coder' in a form .*\(from: this release knows no such field\)"
    ):
        await _read_with(tmp_path, "models", "coder")


async def test_what_was_learnt_is_learnt_again_if_it_can_not_be_read(tmp_path: Path) -> None:
    assert await _read_with(tmp_path, "sources", "file:/a") == []


async def test_a_kind_that_is_not_known_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"has spells 'abracadabra' .*\(this release knows no such kind\)"):
        await _read_with(tmp_path, "spells", "abracadabra")


@pytest.mark.parametrize(
    ("column", "text", "told"),
    [
        ("request", '{"task_id":"task-1"}', "app: the field is missing"),
        ("terminal", '{"kind":"gone"}', "kind: 'gone' is none of answer, error, stopped"),
        ("state", "PAUSED", "not a valid TaskState"),
    ],
)
async def test_a_task_that_can_not_be_read_is_not_passed_over(
    tmp_path: Path, column: str, text: str, told: str
) -> None:
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    await store.save_task(TASK, 1)
    await store.save_ending(TASK.task_id, ENDING)
    await store._writer.write(_executing(sqlalchemy.update(schema.tasks).values({column: text})))
    with pytest.raises(FailedPrecondition, match=f"has task 'task-1' in a form .*{told}") as refused:
        await store.tasks()
    assert refused.value.reason is Reason.STORE_FAILED
    await store.close()


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    open_sqlite(tmp_path)
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}


async def test_a_superseded_orchestrator_can_write_no_more(tmp_path: Path) -> None:
    old, new = open_sqlite(tmp_path), open_sqlite(tmp_path)
    await old.begin_incarnation()
    await new.begin_incarnation()
    with pytest.raises(FailedPrecondition, match="taken over") as refused:
        await old.save_task(TASK, 1)
    assert refused.value.reason is Reason.STALE_EPOCH
    assert await new.tasks() == []
    await old.close()
    await new.close()


async def test_a_superseded_orchestrator_can_not_raise_its_epoch(tmp_path: Path) -> None:
    old, new = open_sqlite(tmp_path), open_sqlite(tmp_path)
    await old.begin_incarnation()
    present = await new.begin_incarnation()
    with pytest.raises(FailedPrecondition, match="taken over") as refused:
        await old.raise_epoch(present.control_epoch + 5)
    assert refused.value.reason is Reason.STALE_EPOCH
    await new.save_task(TASK, 1)
    assert (await new.raise_epoch(0)).control_epoch == present.control_epoch + 1
    await old.close()
    await new.close()


async def test_writes_beside_the_rise_of_the_epoch_are_kept(tmp_path: Path) -> None:
    """Asked for before, at once with it, and after it, in whatever transactions they end up."""
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    tasks = [replace(TASK, task_id=f"task-{number}") for number in range(40)]
    writes = [store.save_task(task, 1) for task in tasks]
    writes.insert(20, store.raise_epoch(9))  # type: ignore[arg-type]  # what it answers is not looked at
    await asyncio.gather(*writes)
    assert [kept.request for kept in await store.tasks()] == tasks
    await store.close()


async def test_a_rise_whose_caller_gave_up_takes_the_store_from_no_one(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    before = await store.begin_incarnation()
    rising = asyncio.create_task(store.raise_epoch(before.control_epoch + 9))
    await asyncio.sleep(0)
    rising.cancel()
    await asyncio.gather(rising, return_exceptions=True)
    await store.save_task(TASK, 1)
    assert (await store.raise_epoch(0)).control_epoch > before.control_epoch + 9
    await store.close()


async def test_what_can_not_be_written_is_refused_and_takes_nothing_else_along(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    no_text: Any = None
    writes = [store.save_task(TASK, 1), store.append_audit(replace(ENTRY, details=no_text)), store.append_audit(ENTRY)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Unavailable, type(None)]
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Unavailable)] == [Reason.STORE_FAILED]
    assert len(await store.tasks()) == len(await store.audit(None, 10)) == 1
    await store.close()


async def test_a_full_disk_is_told_and_over_when_there_is_room_again(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    await store._writer.write(_pragma("PRAGMA max_page_count = 1"))
    with pytest.raises(Unavailable, match="disk") as refused:
        await store.save_task(TaskRequest("task-2", "coder", b"x" * 100_000, "digest", 1, durable=True), 1)
    assert refused.value.reason is Reason.STORE_FAILED
    assert refused.value.retry_after_ms
    await store._writer.write(_pragma("PRAGMA max_page_count = 100000"))
    await store.save_task(TASK, 1)
    assert [kept.request.task_id for kept in await store.tasks()] == ["task-1"]
    await store.close()


async def test_a_closed_store_takes_nothing(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.save_task(TASK, 1)


@pytest.mark.parametrize("over", ["ended", "forgotten"])
async def test_the_prompt_of_a_task_that_is_over_is_overwritten(tmp_path: Path, over: str) -> None:
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    await store.save_task(TASK, 1)
    assert TASK.payload in _contents(tmp_path)
    if over == "ended":
        await store.save_ending(TASK.task_id, ENDING)
    else:
        await store.forget_task(TASK.task_id)
    await store.close()
    assert TASK.payload not in _contents(tmp_path)


async def test_every_statement_is_postgresqls_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may stand in the way of a store that outlives its machine."""
    said: list[sqlalchemy.ClauseElement] = []
    execute = sqlalchemy.Connection.execute

    def noting(self: sqlalchemy.Connection, statement: Any, *arguments: Any) -> Any:
        said.append(statement)
        return execute(self, statement, *arguments)

    monkeypatch.setattr(sqlalchemy.Connection, "execute", noting)
    store = open_sqlite(tmp_path)
    for _ in range(2):
        await store.begin_incarnation()
    await store.save_task(TASK, 1)
    await store.save_ending(TASK.task_id, ENDING)
    model = ModelRecord("coder")
    decision = DecisionRecord("decision-1", "coder", Outcome.CHOSEN, 1)
    for before, after in ((None, model), (model, model), (model, None), (None, decision)):
        await store.save_records([RecordChange(before, after)])
    await store.append_audit(ENTRY)
    assert len(await store.tasks()) == len(await store.records()) == len(await store.audit(5, 10)) == 1
    await store.forget_task(TASK.task_id)
    await store.close()
    tables = [CreateTable(table) for table in schema.metadata.sorted_tables]
    for statement in (*said, *tables):
        assert str(statement.compile(dialect=PGDialect()))  # type: ignore[no-untyped-call]  # SQLAlchemy types it not
    assert len({str(statement) for statement in said}) > 10


@pytest.mark.parametrize("dialect", [postgresql, sqlite], ids=["PostgreSQL", "SQLite"])
def test_a_task_is_saved_as_either_database_is_told_to(dialect: Any) -> None:
    """SQLAlchemy has such a statement for each of them, and none for both."""
    insert = dialect.insert(schema.tasks).inline()
    changed = {name: insert.excluded[name] for name in ("request", "accepted_at_ms", "payload")}
    saved = insert.on_conflict_do_update(index_elements=["task_id"], set_=changed)
    told = saved.compile(dialect=dialect.dialect(paramstyle="named"), column_keys=["task_id", *changed])
    assert re.sub(r"::\w+", "", str(told)) == str(sql._SAVE_TASK)


async def _read_with(folder: Path, kind: str, key: str) -> list[Record]:
    """What the store reads when it holds a record that says nothing that it understands."""
    store = open_sqlite(folder)
    await store.begin_incarnation()
    table = schema.records
    row = {"kind": kind, "record_key": key, "body": '{"from": "the future"}'}
    await store._writer.write(_executing(sqlalchemy.delete(table)))
    await store._writer.write(_executing(sqlalchemy.insert(table).values(row)))
    try:
        return await store.records()
    finally:
        await store.close()


def _executing(statement: sqlalchemy.Executable) -> Callable[[sqlalchemy.Connection], None]:
    def execute(connection: sqlalchemy.Connection) -> None:
        connection.execute(statement)

    return execute


def _contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def _pragma(text: str) -> Callable[[sqlalchemy.Connection], None]:
    def execute(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql(text)

    return execute


def _statements(connection: sqlalchemy.Connection) -> set[str]:
    """What made the tables and indices, without line breaks and in any order."""
    rows = connection.execute(sqlalchemy.text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    return {" ".join(row.sql.split()) for row in rows}


def _fails(_: sqlalchemy.Connection) -> None:
    raise RuntimeError


def _change(folder: Path, what: str) -> None:
    open_sqlite(folder)
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute(f"UPDATE {what}")
        connection.commit()
