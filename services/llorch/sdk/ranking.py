"""What reranking answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """`index` is its position among the documents that were sent, from 0. `score` is the model's own, the higher the
    better: a probability for some models, a number of any size for others.
    """

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """`documents` has the best first; `tokens_in` counts the query with each document that was sent."""

    task_id: str
    documents: tuple[RankedDocument, ...]
    tokens_in: int
