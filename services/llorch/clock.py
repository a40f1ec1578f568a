"""Time, handed in wherever it decides something, so that tests can set it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `monotonic` compares, `wall` is only ever shown."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back; not comparable between machines."""
        ...

    def wall(self) -> datetime:
        """Now in UTC. For people and records; never subtract two of these to decide something."""
        ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> datetime:
        return datetime.now(UTC)
