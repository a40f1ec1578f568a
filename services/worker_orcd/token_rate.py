"""Tokens per second of the last second in which tokens came. Pure."""

from collections import deque

from llorch.clock import Clock

WINDOW_S = 1.0
_APART_S = 0.05
"""Observations that come sooner say nothing more; with it, a window holds a bounded number of them."""


class TokenRate:
    """The wait for a prompt is not in it: it counts from the first tokens on, and from anew after each `rest`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = 0
        self._seen: deque[tuple[float, int]] = deque()

    def observe(self, tokens: int) -> None:
        """`tokens` is the counter's value now, after a step."""
        now = self._clock.monotonic()
        if tokens == self._tokens or (self._seen and now - self._seen[-1][0] < _APART_S):
            return
        self._tokens = tokens
        self._seen.append((now, tokens))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()

    def rest(self, tokens: int) -> None:
        """No run is left; `tokens` is the counter's value now."""
        self._tokens = tokens
        self._seen.clear()

    @property
    def per_second(self) -> float:
        """0 without a run, and before there are two observations. It falls for as long as no token comes."""
        if len(self._seen) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        return (last - first) / max(last_at - first_at, self._clock.monotonic() - last_at)
