"""The folder where the orchestrator keeps what must outlive it. One process at a time."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from llorch.errors import FailedPrecondition, Reason, invalid_field


class DataDir:
    """Held from `__enter__`, which answers the folder, to `__exit__`. The system lets go of it if the process dies."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()

    def __enter__(self) -> Path:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise invalid_field("data_dir", f"{self._root} can't be written to: {exc.strerror}") from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise FailedPrecondition(
                Reason.INVALID_FIELD,
                f"another orchestrator runs with the data directory {self._root}; "
                "end it, or give this one a directory of its own with --data-dir",
            ) from None
        return self._root

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)
