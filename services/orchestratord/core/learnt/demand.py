"""How often models are asked for: the choice of which workers leave memory follows it."""

import math
from dataclasses import dataclass, field

MEMORY_S = 900.0
"""Demand of this long ago weighs 1/e of demand now."""


@dataclass(slots=True)
class _Recent:
    per_s: float
    at: float


@dataclass(slots=True)
class Demand:
    """Requests per second by model, exponentially weighted over the last quarter of an hour."""

    _recent: dict[str, _Recent] = field(default_factory=dict)

    def note(self, model: str, now: float) -> None:
        """A task asks for the model."""
        self._recent[model] = _Recent(self.rate(model, now) + 1 / MEMORY_S, now)

    def rate(self, model: str, now: float) -> float:
        recent = self._recent.get(model)
        return 0.0 if recent is None else recent.per_s * math.exp((recent.at - now) / MEMORY_S)

    def probability(self, model: str, now: float, within_s: float) -> float:
        """The probability of a request for the model within this time, if requests are independent of each other."""
        return -math.expm1(-self.rate(model, now) * within_s)

    def forget(self, model: str) -> None:
        self._recent.pop(model, None)
