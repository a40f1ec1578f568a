"""Models as the catalog has them, and where they can be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from llorch.worker_state import WorkerState
from orchestratord.core.facts.model import Model
from orchestratord.core.state import BrainState

PROBLEMS_TOLD = 8
"""Of one model: a fleet may have many nodes without its file."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """`context` is what one request may use of the workers that are ready, else of those to come; None: not known.
    `names` are those that the caller may use for it, `problems` why machines could not load it.
    """

    model: Model
    context: int | None
    workers_ready: int
    names: Sequence[str] = ()
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AvailabilityView:
    model: str
    staged_node_ids: Sequence[str]
    ready_worker_ids: Sequence[str]


class Namings:
    """What an app may call the models; without an app, what the catalog calls them."""

    def __init__(self, state: BrainState, app: str) -> None:
        known = state.apps.find(app)
        self._own = known.models if known else {}
        self._of_model: dict[str, list[str]] = {}
        for name, meant in sorted(self._own.items()):
            if model := state.catalog.find(meant):
                self._of_model.setdefault(model.name, []).append(name)

    def of(self, model: Model) -> list[str]:
        """An app's own name goes before the same one of the catalog."""
        known = [name for name in (model.name, *model.spec.aliases) if name not in self._own]
        return [*known, *self._of_model.get(model.name, ())]


def view(state: BrainState, model: Model, names: Sequence[str] = ()) -> ModelView:
    workers = state.fleet.workers_of_model(model.name)
    engines = [worker.engine for worker in workers if worker.state is WorkerState.READY and worker.engine]
    offered = min((engine.context_per_slot for engine in engines), default=model.known_context)
    refusals = state.refusals.get(model.name, {})
    problems = (f"{node_id}: {failure.message}" for node_id, failure in islice(refusals.items(), PROBLEMS_TOLD))
    return ModelView(model, offered, len(engines), names, tuple(problems))


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
