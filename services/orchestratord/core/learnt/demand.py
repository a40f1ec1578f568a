"""How often models are asked for: the choice of which workers leave memory follows it.

What the recent requests say of the next one depends on how far back one looks: steady demand is known best by many
requests, demand that changes by the last few. So shares are kept over several half-lives at once, in requests, and each
counts by how well it has foretold the requests of late (a mixture of experts, weighted by their likelihoods).
"""

import math
from dataclasses import dataclass, field

HALF_LIVES = (40.0, 120.0, 400.0)
"""In requests for any model."""

_UNSEEN = 0.3
"""Requests that a model counts as having had before its first one: rare is not never."""
_FORGETS = 0.99
"""What a forecast of one request ago still counts."""
_LARGEST_UNIT = 1e100


@dataclass(slots=True)
class _Shares:
    """Requests by model, of which each later one weighs more: a `unit` is what the next one counts."""

    growth: float
    unit: float = 1.0
    total: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)
    log_likelihood: float = 0.0

    def share(self, model: str, models: int) -> float:
        unseen = _UNSEEN * self.unit
        return (self.counts.get(model, 0.0) + unseen) / (self.total + unseen * models)

    def note(self, model: str, models: int) -> None:
        self.log_likelihood = self.log_likelihood * _FORGETS + math.log(self.share(model, models))
        self.counts[model] = self.counts.get(model, 0.0) + self.unit
        self.total += self.unit
        self.unit *= self.growth
        if self.unit > _LARGEST_UNIT:
            self.counts = {name: count / self.unit for name, count in self.counts.items()}
            self.total, self.unit = self.total / self.unit, 1.0

    def forget(self, model: str) -> None:
        self.total = max(0.0, self.total - self.counts.pop(model, 0.0))


def _shares() -> list[_Shares]:
    return [_Shares(2 ** (1 / half_life)) for half_life in HALF_LIVES]


@dataclass(slots=True)
class Demand:
    """Requests for each model, of all that came."""

    _over: list[_Shares] = field(default_factory=_shares)
    _any: bool = False

    def note(self, model: str) -> None:
        """A task asks for the model."""
        self._any = True
        models = self._models(model)
        for shares in self._over:
            shares.note(model, models)

    def among_next(self, requests: int, model: str) -> float:
        """The probability that one of the next so many requests is for the model; 0 before the first one for any."""
        return 1 - (1 - self._share(model)) ** requests if self._any else 0.0

    def _share(self, model: str) -> float:
        models = self._models(model)
        best = max(shares.log_likelihood for shares in self._over)
        weights = [math.exp(shares.log_likelihood - best) for shares in self._over]
        share = sum(weight * shares.share(model, models) for weight, shares in zip(weights, self._over, strict=True))
        return share / sum(weights)

    def forget(self, model: str) -> None:
        for shares in self._over:
            shares.forget(model)

    def _models(self, model: str) -> int:
        """How many are known, with this one."""
        counts = self._over[0].counts
        return len(counts) + (model not in counts)
