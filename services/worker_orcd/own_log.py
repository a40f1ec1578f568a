"""The file that this process's standard output and error lead to, kept at a bounded size.

The process rotates the file itself, so that nothing is lost: also what native code writes goes to the new file from one
line to the next, and no other program has to run.
"""

import asyncio
import os
from pathlib import Path

LOOK_EVERY_S = 5.0
_STREAMS = (1, 2)


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
        streams = [stream for stream in _STREAMS if self._leads_to_file(stream)]
        if not streams or os.fstat(streams[0]).st_size < self._limit_bytes:
            return False
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in streams:
            os.dup2(opened, stream)
        os.close(opened)
        return True

    def _leads_to_file(self, stream: int) -> bool:
        try:
            return os.path.samestat(os.fstat(stream), self._path.stat())
        except FileNotFoundError:  # it was removed, so that its size does not matter any more
            return False
