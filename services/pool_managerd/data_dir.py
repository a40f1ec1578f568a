"""The folder where this pool manager keeps what must outlive it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llorch.data_dir import held_data_dir


class DataDir:
    def __init__(self, root: Path) -> None:
        self.logs = root / "logs"
        self.workers = root / "workers"
        self.digests = root / "digests"
        self.models = root / "models"
        self.control = root / "control.json"
        self.host = root / "host.json"
        self.sessions = root / "sessions"
        self.sessions_key = root / "sessions_key.json"


@contextmanager
def open_data_dir(root: Path) -> Iterator[DataDir]:
    """Locked meanwhile: a second pool manager would take the first one's workers for leftovers."""
    with held_data_dir(root, "pool manager", "logs", "workers") as folder:
        yield DataDir(folder)
