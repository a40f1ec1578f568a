"""What a model needs, and what makes it need less, in words: the same wherever it is told to fit nowhere."""

from llorch.counted import counted
from orchestratord.core.facts.contexts import contexts_to_try
from orchestratord.core.facts.memory_estimate import estimate_mib
from orchestratord.core.facts.model import Model


def least_mib(model: Model) -> int:
    """With the least context that its owner leaves open, by what is known of it; 0 where nothing is."""
    if model.size_mib is None:
        return model.vram_claim_mib or 0
    return estimate_mib(model, model.size_mib, _least_context(model))


def told_need(model: Model, mib: int) -> str:
    """`mib` is what it needs with the least context that its owner leaves open."""
    if model.vram_claim_mib is not None:
        return f"model '{model.name}' needs {mib} MiB (its vram_claim)"
    least = _least_context(model)
    context = f"context {least}" if least == model.context else f"context {least}, the least that is tried,"
    return f"model '{model.name}' needs about {mib} MiB with {context} and {counted(model.slots, 'slot')}"


def ways_to_less(model: Model) -> str:
    """What the operator can change, as the beginning of a list."""
    return (
        "lower its vram_claim"
        if model.vram_claim_mib is not None
        else "lower its context or slots, take a smaller quantization"
    )


def _least_context(model: Model) -> int:
    *_, least = contexts_to_try(model)
    return least
