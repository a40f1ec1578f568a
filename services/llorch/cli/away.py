"""A line on the terminal while a command waits for the orchestrator that was there before."""

import asyncio
import sys
from collections.abc import Callable
from typing import Self

SAY_SO_AFTER_S = 1.0

_LINE = "the orchestrator does not answer; waiting …"
_ERASE = "\r\x1b[K"


class Away:
    """Says so where it takes longer than a moment, and takes it back once the orchestrator is there. Before it does,
    `end_line` is called, so that what stands on the line stays.
    """

    def __init__(self, end_line: Callable[[], None], *, quiet: bool) -> None:
        self._end_line = end_line
        self._says_so = sys.stderr.isatty() and not quiet
        self._timer: asyncio.TimerHandle | None = None
        self._has_said = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hear(waits=False)

    def hear(self, waits: bool) -> None:
        """For `TaskStream.when_it_waits`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._has_said:
            self._write(_ERASE)
            self._has_said = False
        if waits and self._says_so:
            self._timer = asyncio.get_running_loop().call_later(SAY_SO_AFTER_S, self._say)

    def _say(self) -> None:
        self._end_line()
        self._write(_LINE)
        self._has_said = True

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
