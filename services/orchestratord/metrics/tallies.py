"""What has happened since the start, counted. Pure."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestratord.metrics.window import Window

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
CANDIDATES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
ERRORS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)

MOST_VALUES = 200
OTHER = "other"


class Bounded:
    """Values of a label whose number others decide on: the first so many by name, all further ones together."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value


class Histogram:
    """Counts by the first bound that an amount does not exceed; the last ones exceed all."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        self.counts[bisect_left(self.bounds, amount)] += 1
        self.sum += amount


def _by_label(bounds: Sequence[float]) -> defaultdict[str, Histogram]:
    return defaultdict(lambda: Histogram(bounds))


@dataclass(slots=True)
class Tallies:
    """Keys are the values of labels, in the order in which docs/metrics.md has the labels."""

    events: int = 0
    admissions: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    deadlines: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    queue_wait: defaultdict[str, Histogram] = field(default_factory=lambda: _by_label(SECONDS))
    first_token: defaultdict[str, Histogram] = field(default_factory=lambda: _by_label(SECONDS))
    decisions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    considered: Histogram = field(default_factory=lambda: Histogram(CANDIDATES))
    prediction_error: defaultdict[str, Histogram] = field(default_factory=lambda: _by_label(ERRORS))
    loads: Counter[tuple[str, str]] = field(default_factory=Counter)
    load_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    stops: Counter[tuple[str]] = field(default_factory=Counter)
    recent_tokens: Window[tuple[str, str]] = field(default_factory=Window)
    """By priority and app."""
    recent_deadlines: Window[tuple[str, str]] = field(default_factory=Window)
    """By priority and outcome."""
    recent_chances: Window[str] = field(default_factory=Window)
    """`count` of probabilities that were judged, and the sum of their `squared_error`."""
