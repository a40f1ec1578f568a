"""The log of one worker: written, and when it is long rotated, by its process; read here.

What was written before the last rotation is in a second file, `<name>.1`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from llorch.files_in import files_in

_TAIL_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_FOLLOW_INTERVAL_S = 0.25
_KEEP_LOGS = 100
_KEEP_BYTES = 256 * 1024 * 1024
"""Of the logs of workers that have ended, all together. Those that live have twice `log_limit_mib` each."""
_LONGEST_LINE_BYTES = 4000  # what is longer is cut: lines travel in messages of bounded size


def last_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last `count` lines, oldest first; empty where there is no log."""
    lines: list[bytes] = []
    for part in (path, _rotated(path)):
        if len(lines) < count:
            lines = _lines_of(part) + lines
    return tuple(_text(line) for line in lines[-count:])


async def read_log(path: Path, count: int, is_over: Callable[[], bool]) -> AsyncIterator[tuple[str, ...]]:
    """The last `count` lines, then every line as it is written, until `is_over` and all was told.

    A line is told when it is complete, or when nothing can come after it.
    """
    file: BinaryIO = path.open("rb")
    try:
        complete, rest = _tail(file)
        if len(complete) < count and not _is_same(_rotated(path), file):  # rotated since it was opened
            complete = _lines_of(_rotated(path)) + complete
        complete = complete[-count:]
        while True:
            if complete:
                yield tuple(_text(line) for line in complete)
            nothing_comes, is_rotated = is_over(), _is_another(path, file)
            chunk = file.read(_CHUNK_BYTES)
            if not chunk and is_rotated:
                file = _following(path, file)
            elif not chunk and nothing_comes:
                break
            elif not chunk:
                await asyncio.sleep(_FOLLOW_INTERVAL_S)
            *complete, rest = (rest + chunk).split(b"\n")
        if rest:
            yield (_text(rest),)
    finally:
        file.close()


def forget_oldest_logs(folder: Path, living: Collection[str]) -> None:
    """Bounds the folder. The logs of `living` workers stay, however long ago they wrote something, and the newest of
    those that have ended. Raises OSError.
    """
    logs: dict[str, list[tuple[Path, os.stat_result]]] = {}
    for path, facts in files_in(folder, "*.log*"):
        logs.setdefault(path.name.rpartition(".log")[0], []).append((path, facts))
    ended = [files for worker_id, files in logs.items() if worker_id not in living]
    ended.sort(key=lambda files: max(facts.st_mtime_ns for _, facts in files), reverse=True)
    size_bytes = 0
    for number, files in enumerate(ended):
        size_bytes += sum(facts.st_size for _, facts in files)
        if number >= _KEEP_LOGS or (number > 0 and size_bytes > _KEEP_BYTES):
            for path, _ in files:
                path.unlink(missing_ok=True)


def _rotated(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _is_another(path: Path, file: BinaryIO) -> bool:
    """Whether the log goes on in another file than this one, which has ended then."""
    return path.exists() and not _is_same(path, file)


def _is_same(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:  # removed
        return False


def _following(path: Path, file: BinaryIO) -> BinaryIO:
    """The file in which the log goes on after this one, which it closes. A reader that was slow while the log was
    rotated twice finds the one between under the other name.
    """
    names = [path] if _is_same(_rotated(path), file) else [_rotated(path), path]
    file.close()
    for name in names:
        with suppress(FileNotFoundError):
            return name.open("rb")
    return path.open("rb")


def _lines_of(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            complete, rest = _tail(file)
    except FileNotFoundError:
        return []
    return [*complete, rest] if rest else complete


def _tail(file: BinaryIO) -> tuple[list[bytes], bytes]:
    """Complete lines of the last MiB, and what follows the last line end. Leaves the file at its end."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _TAIL_BYTES))
    *complete, rest = file.read().split(b"\n")
    return (complete[1:] if start else complete), rest


def _text(line: bytes) -> str:
    return line[:_LONGEST_LINE_BYTES].decode(errors="replace").rstrip("\r")
