"""Small files that are there as a whole or not at all, whatever happens to the power."""

import json
import os
from pathlib import Path
from typing import Any

BESIDE = ".new"
"""How the name ends under which a file is written, before it takes the place of the earlier one."""


def write_durably(path: Path, content: dict[str, Any]) -> None:
    """Replaces `path` by this content as JSON, readable by its owner only. Blocks until the disk has it."""
    beside = path.with_suffix(BESIDE)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
