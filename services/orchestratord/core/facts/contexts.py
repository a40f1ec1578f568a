"""How many tokens one request may use, where the owner of a model did not set it."""

from collections.abc import Iterator

from orchestratord.core.facts.model import Model

SMALLEST_CONTEXT = 2048


def contexts_to_try(model: Model) -> Iterator[int]:
    """What the owner asked for and nothing else; without it the default, and then less, as long as it fits nowhere.

    By halves: the memory of a model is learnt per context, so a context that followed every change of free memory
    would never be used again.
    """
    context = model.context
    yield context
    if model.spec.context is not None:
        return
    while context // 2 >= SMALLEST_CONTEXT:
        context //= 2
        yield context
