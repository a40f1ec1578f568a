"""A database whose commits fail: before anything is written, or after all of it is."""

import sqlite3
from collections.abc import Callable
from enum import Enum, auto
from random import Random
from typing import Any

from orchestratord.store.sql import SqlStore


class Commit(Enum):
    DONE = auto()
    FAILS = auto()
    """Nothing is written."""
    FAILS_WHEN_DONE = auto()
    """All is written, and the caller hears the same as where nothing is."""


def faulty(store: SqlStore, outcome: Callable[[], Commit]) -> SqlStore:
    """`outcome` is asked for each commit, in the thread of the store's writer."""
    dialect: Any = store._writer._engine.dialect
    commit = dialect.do_commit

    def do_commit(connection: Any) -> None:
        planned = outcome()
        if planned is not Commit.FAILS:
            commit(connection)
        if planned is not Commit.DONE:
            raise sqlite3.OperationalError("disk I/O error")

    dialect.do_commit = do_commit
    return store


def now_and_then(chance: Random, share: float) -> Callable[[], Commit]:
    """So many of the commits fail, half of them after they were done."""

    def outcome() -> Commit:
        if chance.random() >= share:
            return Commit.DONE
        return chance.choice((Commit.FAILS, Commit.FAILS_WHEN_DONE))

    return outcome


def in_turn(*planned: Commit) -> Callable[[], Commit]:
    """The first commits; all later ones are done."""
    left = list(planned)
    return lambda: left.pop(0) if left else Commit.DONE
