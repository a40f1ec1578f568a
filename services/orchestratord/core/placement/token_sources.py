"""Who can tell the tokens of a model: workers that have it, then nodes on which its file lies. Changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Node, Worker
from orchestratord.core.facts.model import Model
from orchestratord.core.state import BrainState

_NEED_NO_DOWNLOAD = ("file:", "dir:", "pkg:")
"""A node need not have looked at such a file yet to have it."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    """A worker; or, without one, a node that reads the vocabulary from the file as the engine does."""

    node_id: str
    worker_id: str = ""
    engine: str = ""


def token_sources(state: BrainState, model: Model) -> list[TokenSource]:
    """The one to ask first is the first. Empty where neither a worker nor a file is known of."""
    workers = [worker for worker in state.fleet.workers_of_model(model.name) if _knows(state, worker, model)]
    workers.sort(key=lambda worker: (worker.leaving is not None, len(worker.attempts), worker.worker_id))
    nodes = sorted(state.fleet.ready_nodes(), key=lambda node: (model.spec.source not in node.staged, node.node_id))
    return [
        *(TokenSource(worker.node_id, worker_id=worker.worker_id) for worker in workers),
        *(source for node in nodes if _may_have(node, model) for source in _by_file(node, model)),
    ]


def _knows(state: BrainState, worker: Worker, model: Model) -> bool:
    """Not where it has another file than the model has by now."""
    return (
        worker.state is WorkerState.READY
        and worker.attached
        and worker.spec.source == model.spec.source
        and state.fleet.node_is_ready(worker)
    )


def _may_have(node: Node, model: Model) -> bool:
    return model.spec.source in node.staged or model.spec.source.startswith(_NEED_NO_DOWNLOAD)


def _by_file(node: Node, model: Model) -> Iterator[TokenSource]:
    """As the engine that would run the model there makes them; not where none would, so that no other's are told."""
    engines = [name for device in node.devices.values() for name in device.engines]
    if engine := next((name for name in engines if model.spec.engine in ("", name)), ""):
        yield TokenSource(node.node_id, engine=engine)
