"""How fast a queue empties, for clients that have to come back later."""

from collections import deque
from dataclasses import dataclass, field

REMEMBERED = 32
"""Tasks that run side by side leave several at once and then none for long: few departures say little."""


@dataclass(slots=True)
class DrainRate:
    """The mean time between two departures while tasks wait, in seconds."""

    _intervals: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _since: float | None = None
    """The last departure, or when the first task began to wait after it; None if none waits."""
    _has_departed: bool = False

    def began(self, now: float) -> None:
        """A task waits, and before it none did: the time until now says nothing of how fast the queue empties."""
        self._since, self._has_departed = now, False

    def departed(self, now: float, *, others_wait: bool) -> None:
        if self._has_departed and self._since is not None:
            self._intervals.append(now - self._since)
        self._since, self._has_departed = (now, True) if others_wait else (None, False)

    def interval_s(self, now: float) -> float | None:
        """None as long as nothing is known. The time since the last departure counts as an interval that is not over
        yet: where the queue stands still, the mean grows with it.
        """
        if not self._intervals:
            return None
        mean = sum(self._intervals) / len(self._intervals)
        standing = 0.0 if self._since is None else now - self._since
        return mean if standing <= mean else (sum(self._intervals) + standing) / (len(self._intervals) + 1)
