"""How many tokens one request may use, where the owner of a model did not say."""

from collections.abc import Iterator

from orchestratord.core.facts.model import Model

SMALLEST_CONTEXT = 2048


def contexts_to_try(model: Model) -> Iterator[int]:
    """What the owner asked for and nothing else; otherwise the default, and then less, as long as it fits nowhere.

    By halves: what a model takes is learnt per context, so a context that followed every change of free memory would
    never be met again.
    """
    context = model.context
    yield context
    if model.spec.context is not None:
        return
    while context // 2 >= SMALLEST_CONTEXT:
        context //= 2
        yield context
