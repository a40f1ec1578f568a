"""Commands that change what is stored: in force, and answered, once the store has the change.

One after the other: each is checked against what is in force, so that two that contradict each other can't both pass.
"""

import asyncio
from contextlib import suppress
from typing import TypeVar

from llorch.errors import LlorchError, Reason, Unavailable
from orchestratord.core.events import Command
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.keeper import Keeper

WITHIN_S = 8.0
"""A disk that takes longer hangs. Shorter than clients wait, so that they hear of it."""

_RETRY_AFTER_MS = 5000
_UNCHANGED = "an earlier change is still being written, and nothing was changed"
_OPEN = "whether the change is kept is not known yet; look whether it is there later"

Answer = TypeVar("Answer")


class KeptChanges:
    def __init__(self, owner: BrainOwner, keeper: Keeper, within_s: float = WITHIN_S) -> None:
        self._owner = owner
        self._keeper = keeper
        self._within_s = within_s
        self._turn = asyncio.Lock()

    async def ask(self, command: Command[Answer]) -> Answer:
        """As `BrainOwner.ask`, but done and kept when this returns. If the store refuses it, nothing has changed.

        Raises Unavailable / STORE_FAILED if the store does not answer in time; the message says whether nothing was
        changed, or that this is open.
        """
        what_is_so = _UNCHANGED
        try:
            async with asyncio.timeout(self._within_s), self._turn:
                await self._settled()  # an earlier change may still be under way whose caller went away
                answer = self._owner.ask(command)
                what_is_so = _OPEN
                error = await self._settled()
        except TimeoutError:
            raise self._late(what_is_so) from None
        if error is not None:
            raise error
        return answer

    async def settled(self) -> None:
        """For what may not meet a change half-way. Returns when there is none, or after a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._within_s):
                await self._settled()

    async def _settled(self) -> LlorchError | None:
        """Returns when no change is under way; with the error of the one that was, if it could not be kept."""
        writing = self._keeper.change_under_way
        return None if writing is None else await asyncio.shield(writing)

    def _late(self, what_is_so: str) -> Unavailable:
        return Unavailable(
            Reason.STORE_FAILED,
            f"the orchestrator's disk has not answered for {self._within_s:g} s: {what_is_so}; see the orchestrator's "
            "log and its disk",
            retry_after_ms=_RETRY_AFTER_MS,
        )
