"""Wakes all tasks that wait for a change. Rings are counted, so that a task misses none between two waits."""

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
        """Whether it rang after the ring number `since`; waits for a ring until a time limit."""
        try:
            async with asyncio.timeout(within_s):
                while self.rings == since:
                    await self._next.wait()
        except TimeoutError:
            return False
        return True
