"""KV caches of sessions on the disk of a GPU host: what the worker that writes them and the pool manager that owns
their folder have to agree on.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llorch.errors import invalid_field
from llorch.files_in import files_in

KEY_BYTES = 32
SAVE_WITHIN_S = 10.0
"""Of one worker, all that it saves: the memory of its device is wanted meanwhile."""

MOST_AT_ONCE = 1000
"""Sessions in one command."""

SUFFIX = ".kv"
WRITTEN_AS = "*.new"
"""Under such names files are written, before they get their own."""

_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SavedFile:
    """`ends_at` is in seconds since the epoch: its time of modification, which its writer sets ahead."""

    path: Path
    size_bytes: int
    ends_at: float


def check_saved_session(name: str, field: str) -> str:
    """The name of a session: 64 hexadecimal digits. Raises `InvalidArgument`."""
    if not _NAME.fullmatch(name):
        raise invalid_field(field, "names a session by 64 hexadecimal digits")
    return name


def files_of(folder: Path, session: str = "") -> list[SavedFile]:
    """What is saved of a session, or of all of them; what ends soonest comes first. Empty where there is no folder, and
    without what the disk can't show.
    """
    found = []
    with suppress(OSError):
        for path, facts in files_in(folder, f"{session}*{SUFFIX}"):
            found.append(SavedFile(path, facts.st_size, facts.st_mtime))
    return sorted(found, key=lambda file: file.ends_at)


def session_of(path: Path) -> str:
    """The name of the session that a file is of."""
    return path.name.partition(".")[0]


def remove_beyond(files: Sequence[SavedFile], budget_bytes: int) -> None:
    """Removes the first ones, until the others together are no larger. Raises OSError."""
    used = sum(file.size_bytes for file in files)
    for file in files:
        if used <= budget_bytes:
            return
        file.path.unlink(missing_ok=True)
        used -= file.size_bytes
