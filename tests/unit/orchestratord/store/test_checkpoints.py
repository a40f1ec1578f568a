"""The write-ahead log stays short, and no write fails for it."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestratord.core.facts.task import TaskRequest
from orchestratord.store import checkpoints
from orchestratord.store.checkpoints import Checkpoints
from orchestratord.store.sqlite import FILE, open_sqlite

KIB = 1024
ROW_BYTES = 32 * KIB
TWICE = 2
"""With all pages that change beside a row's own."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", "CREATE TABLE rows (body)"):
            connection.execute(statement).close()
        yield connection


def longest_log(folder: Path, database: sqlite3.Connection, made: Checkpoints, *, pauses: bool) -> int:
    """In bytes, of a few hundred writes that leave a checkpoint its time, or not."""
    longest = 0
    for _ in range(4 * 64):
        database.execute("INSERT INTO rows VALUES (randomblob(?))", (ROW_BYTES,)).close()
        longest = max(longest, (folder / f"{FILE}-wal").stat().st_size)
        made.groups_written(1)
        if pauses:
            made.close()
    made.close()
    return longest


def test_the_log_begins_anew_after_a_checkpoint(tmp_path: Path, database: sqlite3.Connection) -> None:
    longest = longest_log(tmp_path, database, Checkpoints(tmp_path / FILE), pauses=True)
    assert longest < TWICE * checkpoints.GROUPS * ROW_BYTES


def test_a_log_that_is_too_long_is_emptied_between_two_writes(
    tmp_path: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "GROUPS", 1_000_000)
    monkeypatch.setattr(checkpoints, "MOST_LOG_BYTES", 512 * KIB)
    assert longest_log(tmp_path, database, Checkpoints(tmp_path / FILE), pauses=False) < 512 * KIB + TWICE * ROW_BYTES


def test_a_checkpoint_that_is_under_way_lets_the_log_become_no_more_than_twice_as_long(
    tmp_path: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Checkpoints._make

    def make_slowly(made: Checkpoints, how: str) -> None:
        if how == "PASSIVE":
            time.sleep(0.2)
        make(made, how)

    monkeypatch.setattr(Checkpoints, "_make", make_slowly)
    monkeypatch.setattr(checkpoints, "GROUPS", 1)
    monkeypatch.setattr(checkpoints, "MOST_LOG_BYTES", 512 * KIB)
    longest = longest_log(tmp_path, database, Checkpoints(tmp_path / FILE), pauses=False)
    assert longest < 2 * 512 * KIB + TWICE * ROW_BYTES


async def test_writes_go_on_where_no_checkpoint_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    def locked(*_: Any, **__: Any) -> None:
        nonlocal tried
        tried += 1
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(checkpoints, "GROUPS", 5)
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    monkeypatch.setattr(sqlite3, "connect", locked)  # the store's own connection is open
    for number in range(20):
        await store.save_task(TaskRequest(f"task-{number}", "coder", b"", "digest", 1, durable=True), 1)
    await store.close()
    assert tried > 1
