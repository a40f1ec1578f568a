"""What keeps the bits of a deterministic run the same, whatever runs beside it. Pure.

Measured with llama.cpp: a sequence's logits are bitwise those of a run alone if, and only if, no call of
`llama_decode` that it takes part in contains another sequence, and its prompt is cut at the same absolute
positions. So such a run has calls of its own, between those that the others share; its prompt is evaluated in
chunks that begin at multiples of a fixed size; and of an earlier run's memory it takes over only chunks that
were evaluated just like that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

TEMPLATE_DATE = datetime(2024, 7, 26, tzinfo=UTC)
"""What a chat template is told that today is: the day that templates fall back on when they are not told."""


class _Runs(Protocol):
    @property
    def deterministic(self) -> bool: ...


S = TypeVar("S", bound=_Runs)


def calls(sequences: Sequence[S]) -> Iterator[list[S]]:
    """The sequences by call of `llama_decode`: all that may share one, then each of the others alone."""
    sharing = [sequence for sequence in sequences if not sequence.deterministic]
    if sharing:
        yield sharing
    for sequence in sequences:
        if sequence.deterministic:
            yield [sequence]


@dataclass(frozen=True, slots=True)
class FixedChunks:
    """Chunks of `size` tokens at the absolute positions 0, `size`, 2 · `size` and so on.

    A slot's watermark is how many tokens from its beginning were evaluated in whole chunks of this kind.
    """

    size: int

    def end(self, begin: int, prompt: int) -> int:
        """Where the chunk ends that begins at `begin`, in a prompt of `prompt` tokens."""
        return min((begin // self.size + 1) * self.size, prompt)

    def watermark(self, before: int, begin: int, end: int) -> int:
        """The slot's watermark after a deterministic run evaluated its tokens from `begin` to `end`."""
        is_next = begin <= before and begin % self.size == 0
        return max(before, end) if is_next and end - begin == self.size else before

    def reusable(self, common: int, watermark: int, prompt: int) -> int:
        """How much of a slot's memory a deterministic run may keep, when the first `common` tokens are equal.

        The last token of the prompt is evaluated again, in the chunk that it was in.
        """
        return min(common, watermark, prompt - 1) // self.size * self.size
