"""Which nodes pull a file when a client asks for it, and what a client is told that needs one that none has pulled."""

from collections.abc import Sequence

from llorch.errors import FailedPrecondition, LlorchError, NotFound, Reason
from orchestratord.core.facts.fleet import Node, NodeState
from orchestratord.core.facts.model import Model
from orchestratord.core.state import BrainState


def source_of(state: BrainState, asked: str) -> str:
    """The source of a model of the catalog; a reference stands for itself."""
    model = state.catalog.find(asked)
    if model is None and ":" not in asked:
        state.catalog.get(asked)  # raises, with the nearest names
    return asked if model is None else model.spec.source


def nodes_for(state: BrainState, source: str, node_ids: Sequence[str]) -> list[Node]:
    """The nodes that were named; else one that has the file, else the one with the largest device."""
    if node_ids:
        return [_reachable(state.fleet.node(node_id)) for node_id in dict.fromkeys(node_ids)]
    ready = list(state.fleet.ready_nodes())
    if not ready:
        raise FailedPrecondition(Reason.NO_DEVICE, "no GPU host is connected; start a pool manager there")
    return [min(ready, key=lambda node: (source not in node.staged, -_largest(node), node.node_id))]


def not_pulled(model: Model) -> LlorchError:
    """For calls that read the file of a model and do not bring it."""
    return FailedPrecondition(
        Reason.MODEL_FILE_MISSING,
        f"no node that is connected holds the file of model '{model.name}'; bring it there with `llorch pull "
        f"{model.name}`, or use the model once",
    )


def _reachable(node: Node) -> Node:
    if node.state is not NodeState.READY:
        raise NotFound(Reason.NODE_NOT_FOUND, f"node '{node.node_id}' can't be reached now; see to its pool manager")
    return node


def _largest(node: Node) -> int:
    return max((device.total_mib for device in node.devices.values() if device.usable), default=0)
