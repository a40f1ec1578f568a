"""Where a worker's callers ask about tokens: one question at a time, beside the event loop and the runs."""

import asyncio

from llorch.errors import Reason, ResourceExhausted
from worker_orcd.token_reader import TokenAnswer, TokenQuestion, TokenReader, answer

TURN_WITHIN_S = 5.0
_RETRY_MS = 1000


class TokenDesk:
    def __init__(self, reader: TokenReader) -> None:
        self._reader = reader
        self._turn = asyncio.Lock()

    async def answer(self, question: TokenQuestion) -> TokenAnswer:
        """Raises ResourceExhausted where it has not been its turn for long."""
        try:
            async with asyncio.timeout(TURN_WITHIN_S):
                await self._turn.acquire()
        except TimeoutError:
            raise ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                "this worker has too many questions about tokens to answer; try again shortly",
                retry_after_ms=_RETRY_MS,
            ) from None
        work = asyncio.ensure_future(asyncio.to_thread(answer, self._reader, question))
        work.add_done_callback(self._end_turn)
        return await asyncio.shield(work)

    def _end_turn(self, work: "asyncio.Future[TokenAnswer]") -> None:
        """A thread can't be cancelled: of a caller that left, the turn lasts until its thread is done."""
        self._turn.release()
        if not work.cancelled():
            work.exception()  # marks it as retrieved: the caller may have left
