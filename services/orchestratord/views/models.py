"""Models as the catalog has them, and where they can be had."""

from collections.abc import Sequence
from dataclasses import dataclass

from llorch.worker_state import WorkerState
from orchestratord.core.facts.model import Model
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class ModelView:
    """`context` is what one request may use of the workers that are ready, else of those to come; None: not known."""

    model: Model
    context: int | None
    workers_ready: int


@dataclass(frozen=True, slots=True)
class AvailabilityView:
    model: str
    staged_node_ids: Sequence[str]
    ready_worker_ids: Sequence[str]


def view(state: BrainState, model: Model) -> ModelView:
    workers = state.fleet.workers_of_model(model.name)
    engines = [worker.engine for worker in workers if worker.state is WorkerState.READY and worker.engine]
    offered = min((engine.context_per_slot for engine in engines), default=model.known_context)
    return ModelView(model, offered, len(engines))


def context(state: BrainState, model: Model, trained: int) -> int | None:
    """As in a view of it, by a reader of its file that no node has reported yet: how many tokens it was trained with,
    0 = not known.
    """
    known = view(state, model).context
    return known if known or not trained else model.context_with(trained)


def availability(state: BrainState, model: Model) -> AvailabilityView:
    workers = state.fleet.workers_of_model(model.name)
    return AvailabilityView(
        model=model.name,
        staged_node_ids=sorted(node.node_id for node in state.fleet.nodes.values() if model.spec.source in node.staged),
        ready_worker_ids=sorted(worker.worker_id for worker in workers if worker.state is WorkerState.READY),
    )
