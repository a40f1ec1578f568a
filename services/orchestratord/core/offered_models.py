"""Models that nodes have in a folder of their own: they are in the catalog for as long as a node has them."""

from contextlib import suppress

from llorch.errors import LlorchError
from orchestratord.core import model_changes
from orchestratord.core.catalog import Model, ModelSpec, Origin
from orchestratord.core.events import ModelDeleted, ModelRegistered
from orchestratord.core.fleet import Node
from orchestratord.core.state import BrainState


def take_in(state: BrainState, node: Node) -> None:
    """After a full report. What somebody named on purpose keeps its name; what is in use stays until it is not."""
    for name, source in node.offered.items():
        if state.catalog.find(name) is None:
            spec = ModelSpec(name, source)
            model_changes.registered(state, ModelRegistered(spec, Origin.NODE, f"models_dir of {node.node_id}"))
    for model in state.catalog.all():
        if model.origin is Origin.NODE and not _is_offered(state, model):
            with suppress(LlorchError):
                model_changes.deleted(state, ModelDeleted(model.name))


def _is_offered(state: BrainState, model: Model) -> bool:
    """Also by a node that can't be reached now: it may come back."""
    return any(node.offered.get(model.name) == model.spec.source for node in state.fleet.nodes.values())
