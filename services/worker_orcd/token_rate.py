"""Tokens per second over the last few observations. Pure."""

from collections import deque

from llorch.clock import Clock

OBSERVATIONS = 6
"""With one observation per second, the rate is that of the last five seconds."""


class TokenRate:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=OBSERVATIONS)

    def observe(self, tokens: int) -> None:
        """`tokens` is the counter's value now."""
        self._seen.append((self._clock.monotonic(), tokens))

    @property
    def per_second(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0
