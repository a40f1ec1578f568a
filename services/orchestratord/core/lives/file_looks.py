"""Files that the settings file names: each node that comes looks whether it has them, one after the other.

What a call adds is looked at before it is taken (`runtime/source_check`); the settings file is read before any node is
there.
"""

from collections.abc import Iterator
from itertools import islice

from llorch.model_reference import LocalReference, parse_reference
from orchestratord.core.effects import StageModel
from orchestratord.core.events import StagingFailed
from orchestratord.core.facts.fleet import Node
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.task import failure_on
from orchestratord.core.placement.availability import PASSES
from orchestratord.core.state import BrainState

MOST_LOOKED_AT = 1024
"""Files per node, each time that it comes. The others are looked at when they are loaded."""


def node_came(state: BrainState, node: Node) -> None:
    node.to_look_at = list(islice(dict.fromkeys(_not_looked_at(state, node)), MOST_LOOKED_AT))[::-1]
    _look_at_next(state, node)


def looked(state: BrainState, node_id: str, source: str) -> None:
    """The node has told of this file, which a look or a load has asked for."""
    node = state.fleet.nodes.get(node_id)
    if node is not None and node.to_look_at and node.to_look_at[-1] == source:
        node.to_look_at.pop()
        _look_at_next(state, node)


def failed(state: BrainState, event: StagingFailed) -> bool:
    """Whether nothing but a look has failed: then no load has, but where one would is known."""
    node = state.fleet.nodes.get(event.node_id)
    if node is None or not node.to_look_at or node.to_look_at[-1] != event.source:
        return False
    if any(load.source == event.source for load in state.loads.on_node(event.node_id)):
        return False
    if event.reason not in PASSES:
        for model in state.catalog.by_source(event.source):
            error = failure_on(event.node_id, event.reason, event.message)
            state.refusals.setdefault(model.name, {}).setdefault(node.node_id, error)
    return True


def _not_looked_at(state: BrainState, node: Node) -> Iterator[str]:
    for model in state.catalog.all():
        source = model.spec.source
        is_local = isinstance(parse_reference(source), LocalReference)
        if is_local and source not in node.staged and model.origin_of("source") is Origin.FILE:
            yield source


def _look_at_next(state: BrainState, node: Node) -> None:
    if node.to_look_at:
        state.emit(StageModel(node.node_id, node.to_look_at[-1]))
