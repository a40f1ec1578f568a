"""What a model can be asked for."""

from enum import StrEnum

from llorch.gguf.facts import ModelFacts


class Work(StrEnum):
    """What a model is asked for, by the names of the contract."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


def works_of(facts: ModelFacts) -> tuple[Work, ...]:
    """By what its file says."""
    if facts.generates:
        return Work.GENERATE, Work.EMBED
    return (Work.RERANK,) if facts.ranks else (Work.EMBED,)
