"""What is known of the files that sources refer to."""

from dataclasses import replace

from llorch.gguf.facts import ModelFacts
from orchestratord.core.effects import PersistRecord
from orchestratord.core.events import ModelVerified
from orchestratord.core.facts.model import SourceFacts
from orchestratord.core.lives import forgetting
from orchestratord.core.state import BrainState


def learnt(state: BrainState, source: str, *, size_mib: int, facts: ModelFacts | None = None, digest: str = "") -> None:
    """A node has looked at the file of a source. Facts of a file of another size are dropped."""
    before = state.catalog.known_of(source)
    is_same = before.size_mib in (None, size_mib)
    after = SourceFacts(
        source, size_mib, facts or (before.facts if is_same else None), digest or (before.digest if is_same else "")
    )
    if after != before:
        _learn(state, before, after)


def verified(state: BrainState, event: ModelVerified) -> str:
    """The first digest that was found is what later ones are compared with."""
    before = state.catalog.known_of(event.source)
    if before.digest:
        return before.digest
    after = replace(before, digest=event.digest)
    _learn(state, before, after)
    return after.digest


def restore_source(state: BrainState, record: SourceFacts) -> None:
    state.catalog.learn(record)


def _learn(state: BrainState, before: SourceFacts, after: SourceFacts) -> None:
    state.catalog.learn(after)
    state.emit(PersistRecord(before, after))
    if not state.catalog.by_source(after.source):
        forgetting.unclaimed_files(state)
