"""What a daemon has written since it was started, into a log that it rotates itself."""

import os
from pathlib import Path

from llorch.log_lines import readable

_TAIL_BYTES = 256 * 1024
"""More than what a daemon says when it ends."""


class LogLines:
    """Begins at the end of the log, which `descriptor` has open, as it is when this is made."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._begin = os.fstat(descriptor)

    def read(self) -> list[str]:
        """The last lines, as a person reads them. Of a log that was rotated since, also those before the rotation."""
        parts = [_tail(self._path, self._begin)]
        if not self._is_the_first(self._path):
            parts.insert(0, _tail(self._path.with_name(f"{self._path.name}.1"), self._begin))
        text = b"".join(parts).decode(errors="replace")
        return [readable(line) for line in text.splitlines() if line.strip()]

    def _is_the_first(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), self._begin)
        except FileNotFoundError:
            return True


def _tail(path: Path, begin: os.stat_result) -> bytes:
    try:
        with path.open("rb") as log:
            facts = os.fstat(log.fileno())
            first = begin.st_size if os.path.samestat(facts, begin) else 0
            log.seek(max(first, facts.st_size - _TAIL_BYTES))
            return log.read()
    except FileNotFoundError:
        return b""
