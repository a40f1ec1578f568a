"""What counting and tokenizing answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenCount:
    """`tokens_in` is what `End.tokens_in` of such a task is. `context` is how many tokens one request may use, prompt
    and answer; None where it is not known, and for texts to embed.
    """

    tokens_in: int
    context: int | None

    @property
    def left(self) -> int | None:
        """Tokens that the prompt leaves for an answer; None where that is not known."""
        return None if self.context is None else max(0, self.context - self.tokens_in)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """`pieces` has the bytes of each token where they were asked for, and is empty else."""

    token_ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
