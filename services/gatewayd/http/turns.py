"""Whose turn it is: what clients sent is read, and requests begin, in small steps, of one connection after the other.

A client may send a lot at once on each of its connections. Another client's single request does not wait for all of it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gatewayd.http import limits


class Asker(Protocol):
    """A connection with something to do."""

    def take_step(self) -> bool:
        """Whether there is more to do."""
        ...


class Turns:
    """`now` is read while a turn lasts, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._asking: deque[Asker] = deque()
        self._is_due = False
        self._begun = 0

    def ask(self, asker: Asker) -> None:
        """Once, until a step says that there is nothing more to do."""
        self._asking.append(asker)
        self._come_soon()

    def begin(self) -> None:
        """In this step a request begins. What it takes comes after the turn."""
        self._begun += 1

    def _come_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        self._is_due = False
        ends_at = self._now() + limits.TURN_S
        self._begun = 0
        while self._asking:
            asker = self._asking.popleft()
            if asker.take_step():
                self._asking.append(asker)
            if self._begun >= limits.BEGINS_PER_TURN or self._now() >= ends_at:
                break
        if self._asking:
            self._come_soon()
