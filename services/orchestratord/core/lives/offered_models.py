"""Models that nodes have in a folder of their own: they are in the catalog for as long as a node has them."""

from contextlib import suppress

from llorch.errors import LlorchError
from orchestratord.core.events import ModelRegistered
from orchestratord.core.facts.fleet import Node
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.lives import model_changes
from orchestratord.core.state import BrainState


def take_in(state: BrainState, node: Node) -> None:
    """After a full report. A name that is taken keeps its model."""
    for name, source in node.offered.items():
        if state.catalog.find(name) is None:
            spec = ModelSpec(name, source)
            model_changes.registered(state, ModelRegistered(spec, Origin.NODE, f"models_dir of {node.node_id}"))
    withdraw_what_is_gone(state)


def withdraw_what_is_gone(state: BrainState) -> None:
    """A model that is in use stays until it is not."""
    for model in state.catalog.all():
        said = state.catalog.described(model.name, Origin.NODE)
        if said is not None and not _is_offered(state, said.spec):
            with suppress(LlorchError):
                model_changes.withdrawn(state, model.name, Origin.NODE)


def _is_offered(state: BrainState, spec: ModelSpec) -> bool:
    """Also by a node that can't be reached now: it may come back."""
    return any(node.offered.get(spec.name) == spec.source for node in state.fleet.nodes.values())
