"""Sums over the last minutes. Pure; the clock is handed in."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

BUCKET_S = 30.0
BUCKETS = 10

Key = TypeVar("Key")


@dataclass(slots=True)
class Window(Generic[Key]):
    """Amounts by key over the last five minutes, forgotten half a minute at a time."""

    _buckets: deque[tuple[int, Counter[Key]]] = field(default_factory=lambda: deque(maxlen=BUCKETS))

    def add(self, key: Key, amount: float, now: float) -> None:
        number = int(now // BUCKET_S)
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append((number, Counter()))
        self._buckets[-1][1][key] += amount  # type: ignore[assignment]  # a Counter counts anything that adds up

    def totals(self, now: float) -> dict[Key, float]:
        oldest = int(now // BUCKET_S) - BUCKETS
        totals: Counter[Key] = Counter()
        for number, amounts in self._buckets:
            if number > oldest:
                totals.update(amounts)
        return dict(totals)
