"""The folder where a daemon keeps what must outlive it. One process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llorch.errors import FailedPrecondition, Reason, invalid_field


@contextmanager
def held_data_dir(root: Path, holder: str, *folders: str) -> Iterator[Path]:
    """Makes it with its `folders`, for its owner alone, and locks it. The kernel releases the lock if the process dies.

    `holder` is what the daemon is called where a second one is refused. Raises `InvalidArgument` for a folder that
    can't be written to, and `FailedPrecondition` for one that is held, with the process that holds it.
    """
    folder = root.expanduser().absolute()
    try:
        for made in (folder, *(folder / name for name in folders)):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise invalid_field("data_dir", f"{folder} can't be written to: {error.strerror}") from error
    try:
        _lock(lock, folder, holder)
        yield folder
    finally:
        os.close(lock)


def _lock(lock: int, folder: Path, holder: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FailedPrecondition(
            Reason.INVALID_FIELD,
            f"another {holder}{_process(lock)} runs with the data directory {folder}; "
            "end it, or give this one a directory of its own with --data-dir",
        ) from None
    with suppress(OSError):  # on a full disk: it is for the message alone
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)


def _process(lock: int) -> str:
    """Which one it is, as it has written there itself."""
    pid = os.pread(lock, 20, 0).decode(errors="replace")
    return f" (process {pid})" if pid.isdecimal() else ""
