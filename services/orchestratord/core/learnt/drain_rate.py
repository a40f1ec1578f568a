"""How fast a queue empties, for clients that have to come back later."""

from dataclasses import dataclass

MAX_RETRY_AFTER_MS = 60_000
DEFAULT_RETRY_AFTER_MS = 1_000


@dataclass(slots=True)
class DrainRate:
    """Exponentially weighted mean of the time between two departures, in seconds."""

    weight: float = 0.2
    _last_at: float | None = None
    _interval_s: float | None = None
    _refused: int = 0

    def departed(self, now: float) -> None:
        if self._last_at is not None:
            interval = now - self._last_at
            known = self._interval_s
            self._interval_s = interval if known is None else known + self.weight * (interval - known)
        self._last_at = now
        self._refused = max(0, self._refused - 1)

    def refused(self) -> None:
        """A client was refused, and comes back after the delay that it was given."""
        self._refused += 1

    def retry_after_ms(self, now: float) -> int:
        """Time until there should be a place for one more, in ms; a second as long as nothing is known.

        Every refused client gets a place of its own, so that they do not all come back at once. A queue that has
        stood still for longer than usual is taken to be that slow.
        """
        if self._interval_s is None or self._last_at is None:
            return DEFAULT_RETRY_AFTER_MS
        interval_s = max(self._interval_s, now - self._last_at)
        return max(1, min(round(interval_s * 1000 * max(1, self._refused)), MAX_RETRY_AFTER_MS))
