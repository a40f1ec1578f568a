"""Commands that change what is stored: in force, and answered, once the store has the change.

One after the other: each is checked against what is in force, so that two that contradict each other can't both pass.
"""

import asyncio
from typing import TypeVar

from llorch.errors import LlorchError, Reason, Unavailable
from orchestratord.core.events import Command
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.keeper import Keeper

WITHIN_S = 30.0
"""A disk that takes longer for one change is broken, or its driver hangs."""

_RETRY_AFTER_MS = 5000

Answer = TypeVar("Answer")


class KeptChanges:
    def __init__(self, owner: BrainOwner, keeper: Keeper, within_s: float = WITHIN_S) -> None:
        self._owner = owner
        self._keeper = keeper
        self._within_s = within_s
        self._turn = asyncio.Lock()

    async def ask(self, command: Command[Answer]) -> Answer:
        """As `BrainOwner.ask`, but done and kept when this returns. If the store refuses it, nothing has changed.

        Raises Unavailable / STORE_FAILED if the store does not answer: before it was this command's turn nothing has
        changed; after that it is open, and the message says so.
        """
        try:
            async with asyncio.timeout(self._within_s):
                await self._turn.acquire()
        except TimeoutError:
            raise self._late("an earlier change is still being written, and nothing was changed") from None
        try:
            return await self._ask_in_turn(command)
        finally:
            self._turn.release()

    async def _ask_in_turn(self, command: Command[Answer]) -> Answer:
        """An earlier change may still be under way: its caller went away."""
        await self._settled("an earlier change is still being written, and nothing was changed")
        answer = self._owner.ask(command)
        error = await self._settled("whether the change is kept is not known yet; look whether it is there later")
        if error is not None:
            raise error
        return answer

    async def _settled(self, if_late: str) -> LlorchError | None:
        writing = self._keeper.change_under_way
        if writing is None:
            return None
        try:
            async with asyncio.timeout(self._within_s):
                return await asyncio.shield(writing)
        except TimeoutError:
            raise self._late(if_late) from None

    def _late(self, what_is_open: str) -> Unavailable:
        return Unavailable(
            Reason.STORE_FAILED,
            f"the orchestrator's disk has not answered for {self._within_s:g} s: {what_is_open}; see the "
            "orchestrator's log and its disk",
            retry_after_ms=_RETRY_AFTER_MS,
        )
