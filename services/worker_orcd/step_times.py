"""How long steps take: a histogram that costs nothing to keep. Pure."""

from bisect import bisect_left

BOUNDS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class StepTimes:
    """One thread observes; others may read at any time and then see a moment of it."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        """Of steps, by the first bound that they did not exceed; the last ones exceeded all."""
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds
