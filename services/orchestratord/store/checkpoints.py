"""What is in the write-ahead log comes into the database file beside the writer.

A checkpoint waits for the disk twice. By itself, SQLite makes it within a commit, which would wait for it then.
"""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from llorch.logs import get_logger

GROUPS = 64
"""Commits between two checkpoints: the log has a megabyte or two then, and begins anew with the next commit."""

MOST_LOG_BYTES = 32 * 1024 * 1024
"""A log that grows all the time, since commits come without a pause, is emptied between two of them once it is so long,
or twice as long where a checkpoint is under way.
"""

_BUSY_TIMEOUT_S = 5.0

_log = get_logger("orchestratord")


class Checkpoints:
    """Of the database at `path`. All but its own thread is the writer's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log_path = path.with_name(f"{path.name}-wal")
        self._groups = 0
        self._thread: threading.Thread | None = None

    def groups_written(self, groups: int) -> None:
        """Returns at once, but for a log that is too long."""
        self._groups += groups
        is_under_way = self._thread is not None and self._thread.is_alive()
        # To wait for the one that is under way would add its two waits for the disk.
        if self._log_bytes() > MOST_LOG_BYTES * (2 if is_under_way else 1):
            self.close()
            self._make("TRUNCATE")
        elif self._groups >= GROUPS and not is_under_way:
            self._thread = threading.Thread(target=self._make, args=("PASSIVE",), name="checkpoint", daemon=True)
            self._thread.start()
        else:
            return
        self._groups = 0

    def close(self) -> None:
        """Waits for a checkpoint that is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _log_bytes(self) -> int:
        try:
            return self._log_path.stat().st_size
        except OSError:
            return 0

    def _make(self, how: str) -> None:
        """What fails is tried again after as many groups."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)) as connection:
                connection.execute("PRAGMA synchronous = FULL").close()
                connection.execute(f"PRAGMA wal_checkpoint({how})").close()
        except sqlite3.Error as error:
            _log.warning("no_checkpoint", error=str(error))
