"""The store in one file of the data directory. All that is SQLite's own is here."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from llorch.errors import FailedPrecondition, Reason
from orchestratord.store import migrate
from orchestratord.store.sql import SqlStore

FILE = "orchestrator.db"

_BUSY_TIMEOUT_MS = 5000
_PRAGMAS = (
    "journal_mode = WAL",  # a commit is one write to the end of a file
    "synchronous = FULL",  # … and is on the disk when it returns
    "secure_delete = ON",  # what is deleted (prompts, outputs) is overwritten, not only unlinked
    f"busy_timeout = {_BUSY_TIMEOUT_MS}",
)


def open_sqlite(folder: Path) -> SqlStore:
    """Makes the file if there is none, and migrates it; before that it is copied beside itself. Blocks.

    Raises FailedPrecondition if a newer release has written it, or if it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        path.touch(mode=0o600)
    engine = _engine(path)
    try:
        migrate.bring_up_to_date(engine, lambda revision: _copy(path, folder / f"{FILE}.before-{revision}"))
    except SQLAlchemyError as error:
        engine.dispose()
        raise FailedPrecondition(
            Reason.STORE_FAILED,
            f"the database {path} can't be opened: {error.__cause__ or error}; bring back a copy of it, or move it "
            "away to begin with an empty one",
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine)


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        # Transactions are begun below, so that they hold changes of tables as well, and take the write lock at once.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _copy(path: Path, target: Path) -> None:
    """A whole copy, also of what is in the write-ahead log only."""
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
