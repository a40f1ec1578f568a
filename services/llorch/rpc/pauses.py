"""How long a client that lost its server waits between two attempts to reach it."""

import asyncio
import random

_FIRST_S = 0.1
# The orchestrator ends what nothing reads for 2 s.
_LONGEST_S = 1.0


class Pauses:
    """Longer each time, never the same for two clients, and over `within_s` after the first one began."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._next_s = _FIRST_S
        self._over_at: float | None = None

    @property
    def over_at(self) -> float | None:
        """In the loop's time; None before the first one."""
        return self._over_at

    def start_over(self) -> None:
        self._next_s = _FIRST_S
        self._over_at = None

    async def wait(self, asked_for_ms: int | None = None) -> bool:
        """False when the time is over. `asked_for_ms` is what the server asks for; the longest pause bounds it."""
        now = asyncio.get_running_loop().time()
        if self._over_at is None:
            self._over_at = now + self._within_s
        if now >= self._over_at:
            return False
        own = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311  # no secret depends on it
        self._next_s = min(self._next_s * 2, _LONGEST_S)
        pause = max(own, min((asked_for_ms or 0) / 1000, _LONGEST_S))
        await asyncio.sleep(min(pause, self._over_at - now))
        return True
