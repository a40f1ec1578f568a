"""How long a piece of a prompt may be. Pure.

While a piece is evaluated, no run gets tokens. So its size follows from the speed that was measured on pieces
before it. Speed falls with the position, since every token attends to all tokens before it: each range of
positions has its own.
"""

from math import inf

SAFETY = 0.8
"""Part of the allowed time that is planned for: a piece should seldom take longer."""

_WEIGHT = 0.5
_RANGE = 1024
_SLOWER_PER_RANGE = 0.7
"""What is expected of a range that nothing is known about, from the one below it."""


class ChunkSize:
    """`smallest` is also the size of a piece where nothing is measured yet, and sizes are multiples of it."""

    def __init__(self, largest: int, smallest: int) -> None:
        self._largest = largest
        self._smallest = smallest
        self._tokens_per_s: dict[int, float] = {}
        """By the number of bits of position / 1024: 0, 1, 2-3, 4-7 …"""

    def within(self, position: int, seconds: float | None) -> int:
        """Tokens that take about so long at this position, from the smallest piece to the largest. None: no hurry."""
        if seconds is None:
            return self._largest
        fitting = int(self._speed(position) * seconds * SAFETY) // self._smallest * self._smallest
        return max(self._smallest, min(fitting, self._largest))

    def seconds(self, position: int, tokens: int) -> float:
        """How long so many tokens take; for ever if nothing is known."""
        speed = self._speed(position)
        return tokens / speed if speed else inf

    def prompt_seconds(self, tokens: int) -> float:
        """How long a prompt of so many tokens takes from its beginning; for ever if nothing is known."""
        spans = ((begin, min(begin + _RANGE, tokens) - begin) for begin in range(0, tokens, _RANGE))
        return sum(self.seconds(begin, count) for begin, count in spans)

    def observe(self, position: int, tokens: int, seconds: float) -> None:
        """A piece of this size took so long. Tiny ones say little and are left out."""
        if tokens < self._smallest or seconds <= 0:
            return
        key = _range_of(position)
        before = self._tokens_per_s.get(key, tokens / seconds)
        self._tokens_per_s[key] = before + _WEIGHT * (tokens / seconds - before)

    def _speed(self, position: int) -> float:
        wanted = _range_of(position)
        if wanted in self._tokens_per_s:
            return self._tokens_per_s[wanted]
        below = [known for known in self._tokens_per_s if known < wanted]
        if below:
            return self._tokens_per_s[max(below)] * _SLOWER_PER_RANGE ** (wanted - max(below))
        return min(self._tokens_per_s.values(), default=0.0)


def _range_of(position: int) -> int:
    return (position // _RANGE).bit_length()
