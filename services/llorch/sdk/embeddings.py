"""What embedding answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`vectors` has one per text, in their order, of length 1; `tokens_in` counts the tokens of all texts."""

    task_id: str
    vectors: tuple[tuple[float, ...], ...]
    tokens_in: int
