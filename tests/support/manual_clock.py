"""A clock that stands still until a test sets it."""

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass
class ManualClock:
    now: float = 0.0
    epoch: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self.epoch.timestamp() + self.now, UTC)

    def advance(self, seconds: float) -> None:
        self.now += seconds
