"""What the memory of a model's architecture can forget. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryKind:
    """`trims`: the end of a sequence can be forgotten; recurrent models have only the state after the last token.

    `window` is the attention window in tokens where layers have one, else 0: they keep no more than that.
    """

    trims: bool = True
    window: int = 0

    def first_of_state(self, held: int, first_position: int) -> int:
        """The oldest position in a saved state of `held` tokens: it has none that is outside of the window of the next
        one, where the slot still may.
        """
        return max(first_position, held - self.window) if self.window else first_position

    def usable(self, held: int, wanted: int, first_position: int) -> int:
        """All of the first `wanted` of `held` tokens, or 0. `first_position` is the oldest that every layer has."""
        if wanted == held:
            return wanted
        if not self.trims:
            return 0
        if self.window and first_position > max(0, wanted - self.window):
            return 0
        return wanted
