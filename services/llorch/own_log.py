"""The file that this process's standard output and error lead to, kept at a bounded size.

The process rotates the file itself, so that nothing is lost: also what native code writes goes to the new file from one
line to the next, and no other program has to run.
"""

import asyncio
import os
from pathlib import Path

LOOK_EVERY_S = 5.0
_STREAMS = (1, 2)
_WAITS_FOR_A_LINE_TIMES = 2
"""A log that is so many times too long is rotated in the midst of a line, too: it may have no line ends at all."""


class OwnLog:
    """At `limit_bytes` the file becomes `<name>.1`, in place of the one before, and a new one begins."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes

    async def rotate_forever(self) -> None:
        while True:
            self.rotate_if_long()
            await asyncio.sleep(LOOK_EVERY_S)

    def rotate_if_long(self) -> bool:
        """Raises no error: a disk that is full, or a folder that is gone, must not end the process."""
        streams = [stream for stream in _STREAMS if self._leads_to_file(stream)]
        try:
            if not streams or not self._is_to_be_rotated():
                return False
            self._rotate(streams)
        except OSError:
            return False
        return True

    def _is_to_be_rotated(self) -> bool:
        size = self._path.stat().st_size
        return size >= self._limit_bytes and (
            size >= _WAITS_FOR_A_LINE_TIMES * self._limit_bytes or self._ends_with_a_line(size)
        )

    def _rotate(self, streams: list[int]) -> None:
        """The streams turn first, then the names: a reader that finds another file under the name has all of this one.
        Where the file system can do it, there is a file under the name at any moment.
        """
        coming = self._path.with_name(f"{self._path.name}.new")
        coming.unlink(missing_ok=True)
        opened = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for stream in streams:
                os.dup2(opened, stream)
        finally:
            os.close(opened)
        before = self._path.with_name(f"{self._path.name}.1")
        before.unlink(missing_ok=True)
        try:
            os.link(self._path, before)
        except OSError:  # the file system has no second names
            self._path.replace(before)
        coming.replace(self._path)

    def _ends_with_a_line(self, size: int) -> bool:
        with self._path.open("rb") as file:
            file.seek(max(0, size - 1))
            return file.read(1) in (b"\n", b"")

    def _leads_to_file(self, stream: int) -> bool:
        try:
            return os.path.samestat(os.fstat(stream), self._path.stat())
        except OSError:  # it was removed, so that its size does not matter any more, or the stream is closed
            return False
