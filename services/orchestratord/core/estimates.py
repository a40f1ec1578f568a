"""Numbers that are learnt as they come: a mean that follows change, and how far single values lie from it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a quantity after `count` observations. `spread` is a standard deviation."""

    mean: float
    spread: float
    count: int = 1

    def __add__(self, other: "Estimate") -> "Estimate":
        """The sum of two quantities that have nothing to do with each other."""
        spread = math.hypot(self.spread, other.spread)
        return Estimate(self.mean + other.mean, spread, min(self.count, other.count))

    def times(self, factor: float) -> "Estimate":
        return Estimate(self.mean * factor, self.spread * abs(factor), self.count)

    def chance_below(self, limit: float) -> float:
        """The probability that the quantity is at most `limit`, if it is distributed normally."""
        if self.spread <= 0:
            return 1.0 if self.mean <= limit else 0.0
        return 0.5 * math.erfc((self.mean - limit) / (self.spread * math.sqrt(2)))


@dataclass(slots=True)
class Learnt:
    """Exponentially weighted mean and variance (West, 1979).

    The first values count alike, until there are 1 / `weight` of them: none of them is taken for the truth.
    """

    weight: float = 0.1
    _mean: float = 0.0
    _variance: float = 0.0
    _count: int = 0

    def take_in(self, value: float) -> None:
        self._count += 1
        weight = max(self.weight, 1 / self._count)
        difference = value - self._mean
        self._mean += weight * difference
        self._variance = (1 - weight) * (self._variance + weight * difference * difference)

    @property
    def estimate(self) -> Estimate | None:
        return Estimate(self._mean, math.sqrt(self._variance), self._count) if self._count else None
