"""KV caches of sessions on the disk of a GPU host: what the worker that writes them and the pool manager that owns their
folder have to agree on.
"""

import re
from pathlib import Path

from llorch.errors import invalid_field

KEY_BYTES = 32
SAVE_WITHIN_S = 10.0
"""Of one worker, all that it saves: the memory of its device is wanted meanwhile."""

MOST_AT_ONCE = 1000
"""Sessions in one command."""

SUFFIX = ".kv"
WRITTEN_AS = "*.new"
"""Under such names files are written, before they get their own."""

_NAME = re.compile(r"[0-9a-f]{64}")


def check_saved_session(name: str, field: str) -> str:
    """The name of a session: 64 hexadecimal digits. Raises `InvalidArgument`."""
    if not _NAME.fullmatch(name):
        raise invalid_field(field, "names a session by 64 hexadecimal digits")
    return name


def files_of(folder: Path, session: str = "*") -> list[Path]:
    """What is saved of a session, or of all of them, oldest names first. Raises OSError."""
    return sorted(folder.glob(f"{session}.*{SUFFIX}"))
