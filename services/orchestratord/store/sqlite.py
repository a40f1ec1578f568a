"""The store in one file of the data directory. All that is SQLite's own is here."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from llorch.errors import FailedPrecondition, Reason
from llorch.logs import get_logger
from orchestratord.store import migrate
from orchestratord.store.checkpoints import Checkpoints
from orchestratord.store.sql import SqlStore, Upkeep

_log = get_logger("orchestratord")

FILE = "orchestrator.db"

DEFAULT_LIMIT_MIB = 1024
DEFAULT_OUTPUT_MIB = 192

_MIB = 1024 * 1024
_BUSY_TIMEOUT_MS = 5000
_LARGEST_WAL_BYTES = 8 * _MIB
_PRAGMAS = (
    "auto_vacuum = INCREMENTAL",  # the file gives space back, in steps; has to come first
    "journal_mode = WAL",  # a commit is one write to the end of a file
    "synchronous = FULL",  # … and is on the disk when it returns
    "wal_autocheckpoint = 0",  # a commit waits for the disk once; see store.checkpoints
    "secure_delete = ON",  # what is deleted (prompts, outputs) is overwritten, not only unlinked
    f"journal_size_limit = {_LARGEST_WAL_BYTES}",  # the log is cut to this after one that was longer
    f"busy_timeout = {_BUSY_TIMEOUT_MS}",
)
_USED = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_INCREMENTAL = 2
_RESERVE = 1 / 8
"""Beyond the limit there is room for what people set and notes of the audit log, and for all output: the ends of tasks
that were accepted.
"""
_FREE_KEPT_BYTES = 16 * _MIB
"""Free pages are used again, so a few stay: else the file would grow and shrink with every task."""
_STEP_BYTES = 2 * _MIB
"""What is given back at a time: on a slow disk a tenth of a second, which a write that comes meanwhile waits."""
_REBUILT_IN_MEMORY_BYTES = 64 * _MIB


def open_sqlite(folder: Path, limit_mib: int = DEFAULT_LIMIT_MIB, output_mib: int = DEFAULT_OUTPUT_MIB) -> SqlStore:
    """Makes the file if there is none, and migrates it; before that it is copied beside itself. Blocks.

    A database that holds `limit_mib` takes no more tasks. `output_mib` is what their outputs may take together.

    Raises FailedPrecondition if a newer release has written it, or if it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        path.touch(mode=0o600)
        # Else a power cut may take the file, or the folder, with all that is in it.
        _sync_folder(folder)
        _sync_folder(folder.parent)
    engine = _engine(path)
    try:
        migrate.bring_up_to_date(engine, lambda revision: _copy(path, folder / f"{FILE}.before-{revision}"))
        _let_it_shrink(engine)
        # Not before: a file that knew no limit, and is larger, needs more while it is changed.
        _bound(engine, round(limit_mib * _MIB * (1 + _RESERVE)) + output_mib * _MIB)
    except SQLAlchemyError as error:
        engine.dispose()
        remedy = (
            "make room on its disk, and start again"
            if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            else "bring back a copy of it, or move it away to begin with an empty one"
        )
        raise FailedPrecondition(
            Reason.STORE_FAILED, f"the database {path} can't be opened: {error.__cause__ or error}; {remedy}"
        ) from error
    except BaseException:
        engine.dispose()
        raise
    checkpoints = Checkpoints(path)

    def tidy_up(engine: Engine, groups: int) -> bool:
        checkpoints.groups_written(groups)
        return _give_back(engine)

    return SqlStore(engine, Upkeep(_used_bytes, limit_mib * _MIB, tidy_up, checkpoints.close))


def _sync_folder(folder: Path) -> None:
    """What is in it by name is on the disk, where its file system can do that."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


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


def _bound(engine: Engine, most_bytes: int) -> None:
    """Each connection that is opened from now on."""
    engine.dispose()

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        most_pages = most_bytes // _pragma(connection, "page_size")
        connection.execute(f"PRAGMA max_page_count = {most_pages}").close()


def _used_bytes(connection: Connection) -> int:
    """What the database holds, without free pages."""
    return int(connection.exec_driver_sql(_USED).scalar_one())


def _give_back(engine: Engine) -> bool:
    """A step of free pages goes back to the file system, from the end of the file on; whether there are more.

    The last step empties the write-ahead log.
    """
    pooled = engine.raw_connection()
    try:
        driver = _driver(pooled)
        page = _pragma(driver, "page_size")
        too_many = _pragma(driver, "freelist_count") - _FREE_KEPT_BYTES // page
        if too_many <= 0:
            return False
        # By `execute` it would be one page: a row of the result is a page that has gone.
        driver.executescript(f"PRAGMA incremental_vacuum({min(too_many, _STEP_BYTES // page)})")
        is_done = too_many <= _STEP_BYTES // page
        if is_done:
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    except sqlite3.Error as error:
        _log.warning("space_not_given_back", error=str(error))
        return False
    else:
        return not is_done
    finally:
        pooled.close()


def _let_it_shrink(engine: Engine) -> None:
    """Once, for a file that an earlier release made. One that can't be rebuilt, for want of space, stays as it is."""
    pooled = engine.raw_connection()
    try:
        driver = _driver(pooled)
        if _pragma(driver, "auto_vacuum") == _INCREMENTAL:
            return
        used = (_pragma(driver, "page_count") - _pragma(driver, "freelist_count")) * _pragma(driver, "page_size")
        _log.info("rebuilding_database", bytes=used)
        if used <= _REBUILT_IN_MEMORY_BYTES:  # else in a file of its own, which is not overwritten afterwards
            driver.execute("PRAGMA temp_store = MEMORY").close()
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA temp_store = DEFAULT"):
            driver.execute(statement).close()
    except sqlite3.Error as error:
        _log.warning("database_not_rebuilt", error=str(error))
    finally:
        pooled.close()


def _driver(pooled: PoolProxiedConnection) -> sqlite3.Connection:
    driver = pooled.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _copy(path: Path, target: Path) -> None:
    """A whole copy, also of what is in the write-ahead log only. It takes the place of earlier ones."""
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    for older in target.parent.glob(f"{FILE}.before-*"):
        if older != target:
            older.unlink()
