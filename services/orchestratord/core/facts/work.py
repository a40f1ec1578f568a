"""What a model can be asked for."""

from enum import StrEnum

from llorch.gguf.facts import ModelFacts


class Work(StrEnum):
    """What a model is asked for, by the names of the contract."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


def works_of(facts: ModelFacts) -> tuple[Work, ...]:
    """By what its file says; all, as long as nothing has read what it was trained for."""
    if facts.pooling is None:
        return tuple(Work)
    if facts.generates:
        return Work.GENERATE, Work.EMBED
    return (Work.RERANK,) if facts.ranks else (Work.EMBED,)
