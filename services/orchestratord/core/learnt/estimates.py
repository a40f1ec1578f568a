"""Quantities that are learnt from observations: a mean that follows change, and how far single values lie from it."""

import math
from dataclasses import dataclass

_LEAST_SPREAD = 0.05
"""A fraction of the mean: no quantity repeats exactly."""

_NEARLY_NEVER = 1e-9
_UNBELIEVABLE = 1e-6

_TRUST = 10
_IMAGINED_VARIANCE = 0.05
"""The variance of the `_TRUST` imagined forecasts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a quantity after `count` observations. `spread` is a standard deviation."""

    mean: float
    spread: float
    count: int = 1

    def __add__(self, other: "Estimate") -> "Estimate":
        """The sum of two independent quantities."""
        spread = math.hypot(self.spread, other.spread)
        return Estimate(self.mean + other.mean, spread, min(self.count, other.count))

    def times(self, factor: float) -> "Estimate":
        return Estimate(self.mean * factor, self.spread * abs(factor), self.count)

    def chance_below(self, limit: float) -> float:
        """The probability that the quantity is at most `limit`, if it is distributed normally."""
        if self.spread <= 0:
            return 1.0 if self.mean <= limit else 0.0
        return 0.5 * math.erfc((self.mean - limit) / (self.spread * math.sqrt(2)))


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a duration that has gone on for `passed` and is not over, and which ends after `at_most` anyway.

    Durations are taken to be lognormal.
    """

    _log_mean: float
    _log_spread: float
    _passed: float
    _beyond: float
    _at_most: float

    @classmethod
    def of(cls, whole: Estimate, passed: float, at_most: float = math.inf) -> "Remaining":
        mean = max(whole.mean, 1.0)
        variance = math.log1p((max(whole.spread, _LEAST_SPREAD * mean) / mean) ** 2)
        log_mean, log_spread = math.log(mean) - variance / 2, math.sqrt(variance)
        return cls(log_mean, log_spread, passed, max(_beyond(passed, log_mean, log_spread), _NEARLY_NEVER), at_most)

    @property
    def is_overdue(self) -> bool:
        """It has taken far longer than was to be expected: by that, nothing can be said of its end."""
        return self._beyond <= _UNBELIEVABLE

    def chance_within(self, time: float) -> float:
        """The probability that it is over within so much more time."""
        if time >= self._at_most:
            return 1.0
        return 1 - _beyond(self._passed + time, self._log_mean, self._log_spread) / self._beyond


def _beyond(time: float, log_mean: float, log_spread: float) -> float:
    if time <= 0:
        return 1.0
    return 0.5 * math.erfc((math.log(time) - log_mean) / (log_spread * math.sqrt(2)))


@dataclass(slots=True)
class Learnt:
    """Exponentially weighted mean and variance (West, 1979).

    The first values count alike, until there are 1 / `weight` of them, so that none of them dominates.
    """

    weight: float = 0.1
    _mean: float = 0.0
    _variance: float = 0.0
    _count: int = 0

    @classmethod
    def going_on(cls, estimate: Estimate, weight: float) -> "Learnt":
        """Continues from an earlier estimate."""
        return cls(weight, estimate.mean, estimate.spread**2, estimate.count)

    def take_in(self, value: float) -> None:
        self._count += 1
        weight = max(self.weight, 1 / self._count)
        difference = value - self._mean
        self._mean += weight * difference
        self._variance = (1 - weight) * (self._variance + weight * difference * difference)

    @property
    def estimate(self) -> Estimate | None:
        return Estimate(self._mean, math.sqrt(self._variance), self._count) if self._count else None


@dataclass(slots=True)
class Reliability:
    """How reliable forecasts of probabilities are, by their outcomes: a line through forecasts and outcomes.

    Forecasts that say little are drawn towards the mean outcome. `_TRUST` imagined outcomes, which are as they were
    forecast, count beside those that were seen: a forecast is trusted until experience contradicts it.
    """

    weight: float = 0.01
    _forecast: float = 0.0
    _outcome: float = 0.0
    _variance: float = 0.0
    _covariance: float = 0.0
    _count: int = 0

    def came(self, forecast: float, outcome: bool) -> None:
        self._count += 1
        weight = max(self.weight, 1 / self._count)
        off_forecast, off_outcome = forecast - self._forecast, outcome - self._outcome
        self._forecast += weight * off_forecast
        self._outcome += weight * off_outcome
        self._variance = (1 - weight) * (self._variance + weight * off_forecast * off_forecast)
        self._covariance = (1 - weight) * (self._covariance + weight * off_forecast * off_outcome)

    def corrected(self, forecast: float) -> float:
        seen = self._count / (self._count + _TRUST)
        imagined = (1 - seen) * _IMAGINED_VARIANCE
        slope = (seen * self._covariance + imagined) / (seen * self._variance + imagined)
        on_line = self._outcome + slope * (forecast - self._forecast)
        return min(1.0, max(0.0, forecast + seen * (on_line - forecast)))
