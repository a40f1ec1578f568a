"""Files that get their name once they are whole, left under another one by a process that was killed before."""

import os
import time
from contextlib import suppress
from pathlib import Path

WRITTEN_WITHIN_S = 60.0
"""One that was not written to for so long belongs to no process any more: each is written in a moment."""


def is_left(facts: os.stat_result) -> bool:
    return time.time() - facts.st_mtime > WRITTEN_WITHIN_S


def remove_left(folder: Path, pattern: str) -> None:
    """Those whose names match. What can't be removed stays."""
    with suppress(OSError):
        for path in folder.glob(pattern):
            with suppress(OSError):
                if is_left(path.lstat()):
                    path.unlink()
