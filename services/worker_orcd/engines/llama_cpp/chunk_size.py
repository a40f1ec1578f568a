"""How long a piece of a prompt may be. Pure.

A piece is evaluated in one call that nothing interrupts: while it runs, nobody's tokens come and no cancel is
heard. So its size follows from the speed that was measured on the pieces before it.
"""

TARGET_S = 0.15
SMALLEST = 16
"""Also the size of the first piece, when nothing is measured yet."""

_WEIGHT = 0.5


class ChunkSize:
    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._tokens_per_s: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the next piece, at most."""
        fitting = int((self._tokens_per_s or 0) * TARGET_S) // SMALLEST * SMALLEST
        return max(SMALLEST, min(fitting, self._largest))

    def observe(self, tokens: int, seconds: float) -> None:
        """A piece of this size took so long. Tiny ones say little and are left out."""
        if tokens < SMALLEST or seconds <= 0:
            return
        measured = tokens / seconds
        if self._tokens_per_s is None:
            self._tokens_per_s = measured
        else:
            self._tokens_per_s += _WEIGHT * (measured - self._tokens_per_s)
