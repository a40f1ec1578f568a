"""Time, handed in wherever it decides something, so that tests can turn it."""

import time
from dataclasses import dataclass
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


@dataclass
class ManualClock:
    """For tests and simulation: stands still until `advance`."""

    now: float = 0.0
    epoch: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self.epoch.timestamp() + self.now, UTC)

    def advance(self, seconds: float) -> None:
        self.now += seconds
