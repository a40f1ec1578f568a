"""Whether the file that a model is to be added with is one, asked of the nodes that could have it.

Only files that lie on a host are looked at: of a reference to the Hub or to a URL is said that it is looked at when it
is pulled or loaded, and what keeps it from that as far as it tells by itself. A file on a host that is not connected
now is told as wrong then too, or by VerifyModel.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llorch.errors import FailedPrecondition, LlorchError, Reason
from llorch.model_reference import HubReference, LocalReference, RemoteReference, UrlReference, parse_reference, shown
from orchestratord.core.facts.fleet import Fleet, NodeState
from orchestratord.runtime.node_commands import NodeCommands

_WITHIN_S = 5.0
"""Clients wait for 10 s. A disk that takes longer sleeps, or is far away: its node says it when the model is loaded."""

_TOLD_AT_MOST = 4
_SAY_WHAT_IT_IS = frozenset({Reason.MODEL_FILE_MISSING, Reason.MODEL_FILE_INVALID, Reason.INVALID_FIELD})


@dataclass(frozen=True, slots=True)
class NodeSaid:
    """`refusal` is why the node has no model there; None if it has one. `is_known`: it has looked."""

    node_id: str
    refusal: LlorchError | None = None
    is_known: bool = True


async def check_on_nodes(source: str, nodes: Mapping[str, NodeCommands], fleet: Fleet) -> str:
    """Raises `FailedPrecondition` where no node could have a model there. Returns what could not be found out, in a
    sentence; empty if it is known, or if no node can say it.
    """
    reference = parse_reference(source)
    if not isinstance(reference, LocalReference):
        is_here = any(source in node.staged for node in fleet.nodes.values())
        return "" if is_here else _of_download(reference)
    answers = await asyncio.gather(*(_ask(source, node_id, commands) for node_id, commands in nodes.items()))
    away = sorted(node.node_id for node in fleet.nodes.values() if node.state is not NodeState.READY)
    return judge(source, answers, away)


def judge(source: str, answers: Sequence[NodeSaid], away: Sequence[str]) -> str:
    """As `check_on_nodes`. `away` are nodes that can't be asked now, and may have the file."""
    if any(answer.is_known and answer.refusal is None for answer in answers):
        return ""
    refused = [(answer.node_id, answer.refusal) for answer in answers if answer.is_known and answer.refusal is not None]
    silent = [*away, *(answer.node_id for answer in answers if not answer.is_known)]
    if silent or not refused:
        who = f"of {_listed(silent)} " if silent else ""
        return f"no machine {who}could say whether {shown(source)} is a model; its file is looked at when it is loaded"
    wrong = [(node_id, error) for node_id, error in refused if error.reason is not Reason.MODEL_FILE_MISSING]
    for node_id, error in wrong:
        raise FailedPrecondition(error.reason, f"source: {error.message} (on {node_id})", metadata=error.metadata)
    nodes = _listed([node_id for node_id, _ in refused])
    raise FailedPrecondition(
        Reason.MODEL_FILE_MISSING,
        f"source: {refused[0][1].message} (on {nodes}), or connect the machine that has it",
    )


def _of_download(reference: RemoteReference) -> str:
    when = f"{shown(reference.text)} is looked at when it is downloaded (`llorch pull`, `llorch load`)"
    if isinstance(reference, UrlReference) and reference.is_private:
        return (
            f"{when}; its host is an address inside of a network: a machine downloads from there only if "
            "`download_private_hosts` in the section [pool_manager] of its settings file names the host"
        )
    if isinstance(reference, HubReference) and not (reference.file or reference.quantization):
        repo = reference.repo
        return f"{when}; if {repo} holds several models, it is refused then: name one, as hf:{repo}:<quantization>"
    return when


async def _ask(source: str, node_id: str, commands: NodeCommands) -> NodeSaid:
    try:
        async with asyncio.timeout(_WITHIN_S):
            await commands.stage(source)
    except TimeoutError:
        return NodeSaid(node_id, is_known=False)
    except LlorchError as error:
        return NodeSaid(node_id, error, is_known=error.reason in _SAY_WHAT_IT_IS)
    return NodeSaid(node_id)


def _listed(node_ids: Sequence[str]) -> str:
    told = ", ".join(node_ids[:_TOLD_AT_MOST])
    return f"{told} and {len(node_ids) - _TOLD_AT_MOST} more" if len(node_ids) > _TOLD_AT_MOST else told
