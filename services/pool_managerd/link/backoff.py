"""How long to wait before trying again."""

import random


class Backoff:
    """Exponential with jitter: nodes that lost the same orchestrator do not come back all at once.

    Waits lie between half of the step and the step; steps double from `first_s` to `highest_s`.
    """

    def __init__(self, first_s: float, highest_s: float) -> None:
        self._first_s = first_s
        self._highest_s = highest_s
        self._step_s = first_s

    def next_s(self) -> float:
        step_s = self._step_s
        self._step_s = min(step_s * 2, self._highest_s)
        return random.uniform(step_s / 2, step_s)  # noqa: S311 - spreads load, keeps no secret

    def reset(self) -> None:
        self._step_s = self._first_s
