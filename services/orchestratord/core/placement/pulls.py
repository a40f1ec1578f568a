"""Which nodes pull a file when a client asks for it, and what a client is told that needs one that none has pulled."""

from collections.abc import Sequence

from llorch.errors import FailedPrecondition, LlorchError, Reason, Unavailable
from orchestratord.core.facts.fleet import Fleet, Node, NodeState
from orchestratord.core.facts.model import Model
from orchestratord.core.state import BrainState

_RETRY_AFTER_MS = 1000
_TOLD_AT_MOST = 4
"""Nodes that are away, in a message."""


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
        raise Unavailable(
            Reason.NO_DEVICE,
            f"no GPU host is connected{_which_are_away(state.fleet)}; start a pool manager there",
            retry_after_ms=_RETRY_AFTER_MS,
        )
    return [min(ready, key=lambda node: (source not in node.staged, -_largest(node), node.node_id))]


def not_pulled(fleet: Fleet, model: Model) -> LlorchError:
    """For calls that read the file of a model and do not bring it. A node that is away may hold it."""
    away = _which_are_away(fleet)
    message = (
        f"no node that is connected holds the file of model '{model.name}'{away}; bring it there with `llorch pull "
        f"{model.name}`, or use the model once"
    )
    if away:
        return Unavailable(Reason.UPSTREAM_UNAVAILABLE, message, retry_after_ms=_RETRY_AFTER_MS)
    return FailedPrecondition(Reason.MODEL_FILE_MISSING, message)


def _which_are_away(fleet: Fleet) -> str:
    away = sorted(node.node_id for node in fleet.nodes.values() if node.state is not NodeState.READY)
    named = ", ".join(away[:_TOLD_AT_MOST]) + (f" and {len(away) - _TOLD_AT_MOST} more" * (len(away) > _TOLD_AT_MOST))
    return f" (away: {named})" if away else ""


def _reachable(node: Node) -> Node:
    if node.state is not NodeState.READY:
        raise Unavailable(
            Reason.NO_DEVICE,
            f"node '{node.node_id}' can't be reached now; see to its pool manager, or try again",
            retry_after_ms=_RETRY_AFTER_MS,
        )
    return node


def _largest(node: Node) -> int:
    return max((device.total_mib for device in node.devices.values() if device.usable), default=0)
