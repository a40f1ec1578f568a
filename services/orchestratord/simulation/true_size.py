"""What a task costs, which the brain learns only when it is over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrueSize:
    tokens_in: int
    tokens_out: int
    fatal_part: int | None = None
    """Of the answer: at its making the worker ends."""
