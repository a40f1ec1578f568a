"""Tells whoever started a daemon where it listens, once it does."""

import os
from pathlib import Path


def write_address(path: Path | None, address: str) -> None:
    """Write `host:port` and a newline so that a reader sees all of it or nothing. Without a path nothing is written."""
    if path is None:
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(f"{address}\n")
    unfinished.replace(path)
