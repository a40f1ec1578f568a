"""Wakes everybody who waits for news. Rings are counted, so one between two looks is not missed."""

import asyncio


class Bell:
    def __init__(self) -> None:
        self.rings = 0
        self._next = asyncio.Event()

    def ring(self) -> None:
        self.rings += 1
        self._next.set()
        self._next = asyncio.Event()

    async def wait_rung(self, since: int, within_s: float) -> bool:
        """Whether it rang after the ring number `since`, waiting for it for a while."""
        try:
            async with asyncio.timeout(within_s):
                while self.rings == since:
                    await self._next.wait()
        except TimeoutError:
            return False
        return True
