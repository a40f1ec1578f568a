"""The files of a folder from which other threads and processes remove some while it is listed."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_in(folder: Path, pattern: str = "*") -> Iterator[tuple[Path, os.stat_result]]:
    """In no order, without what is gone meanwhile and what the disk can't show; nothing where there is no folder.

    Raises OSError where the folder can't be read.
    """
    for path in folder.glob(pattern):
        try:
            facts = path.stat()
        except OSError:
            continue
        yield path, facts
