"""Tells watchers that the state may have changed, at a bounded rate."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from llorch.errors import LlorchError
from orchestratord.core.effects import Effect
from orchestratord.core.events import Event, Tick
from orchestratord.runtime.brain_owner import BrainOwner

AT_MOST_EVERY_S = 0.1
AT_LEAST_EVERY_S = 1.0
"""What changes with the time alone comes with no event that is told of: a load that is given up, for example."""


class StateChanges:
    """Any number of watchers follow; each is woken once for all that happened since it last looked."""

    def __init__(self, owner: BrainOwner) -> None:
        self._followers: set[asyncio.Event] = set()
        owner.watch(self._happened)

    async def follow(self) -> AsyncIterator[None]:
        """Yields at once, then after changes and now and then, until the watcher closes it."""
        changed = asyncio.Event()
        self._followers.add(changed)
        try:
            while True:
                changed.clear()
                yield
                await asyncio.sleep(AT_MOST_EVERY_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(AT_LEAST_EVERY_S):
                        await changed.wait()
        finally:
            self._followers.discard(changed)

    def _happened(self, event: Event, _effects: Sequence[Effect], refusal: LlorchError | None, _asked: bool) -> None:
        """A tick by itself changes little; what it does change comes with effects."""
        if refusal is None and (_effects or not isinstance(event, Tick)):
            for changed in self._followers:
                changed.set()
