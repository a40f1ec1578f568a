"""What a command waits for, told to the person that waits."""

import asyncio
import sys
from typing import Self

from llorch.cli.output import note

SAY_SO_AFTER_S = 10.0
SAY_PLACE_AFTER_S = 1.0
"""On a terminal, that the task waits for a place: where its model is loaded first, that was told by then."""

SAY_AGAIN_AFTER_S = 30.0


class Waiting:
    """Says what the first piece of the answer waits for: on a terminal at once, elsewhere where it takes long."""

    def __init__(self, model: str, *, quiet: bool) -> None:
        self._model = model
        self._quiet = quiet
        self._silence = f"{model} has not answered yet; `llorch ps` shows what it does."
        self._heard = self._silence
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._look_after(SAY_SO_AFTER_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over()

    def expect(self, task_id: str, start_ms: int) -> None:
        """The task does not begin at once."""
        self._heard = (
            f"{self._model} is busy: the task should begin in about {start_ms / 1000:.1f} s; "
            f"`llorch explain --task {task_id}` says what it waits for."
        )
        if sys.stderr.isatty() and not self._quiet:
            self._timer = asyncio.get_running_loop().call_later(SAY_PLACE_AFTER_S, note, self._heard)

    def begins(self) -> None:
        """It has its place, and waits for its first token only."""
        self._heard = self._silence
        if sys.stderr.isatty():
            self.is_over()

    def hear(self, text: str) -> None:
        self._heard = text
        if sys.stderr.isatty():
            self.is_over()
            if not self._quiet:
                note(text)

    def is_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_after(self, seconds: float) -> None:
        if not self._quiet and not sys.stderr.isatty():
            self._timer = asyncio.get_running_loop().call_later(seconds, self._say)

    def _say(self) -> None:
        note(self._heard)
        self._look_after(SAY_AGAIN_AFTER_S)
