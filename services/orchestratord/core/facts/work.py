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


def refusal_of(model: str, facts: ModelFacts | None, work: Work) -> str:
    """Why the model can't be asked for it; empty if it can, or as long as its file is unknown: its worker decides."""
    if facts is None or work in (can := works_of(facts)):
        return ""
    return f"{work}: model '{model}' takes {' and '.join(can)} alone, as its file says; name another model"
