"""Models as the catalog has them, and where they can be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from llorch.counted import counted
from llorch.redaction import redacted
from llorch.worker_state import WorkerState
from orchestratord.core.facts.model import Model, Origin
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
    problems = (failure.message for failure in islice(refusals.values(), PROBLEMS_TOLD))
    return ModelView(model, offered, len(engines), names, tuple(problems))


def workers_serving(state: BrainState, name: str) -> set[str]:
    return {worker.worker_id for worker in state.fleet.workers_of_model(name) if worker.serves}


def surprises(before: Model | None, now: Model, leaving: int) -> list[str]:
    """What follows from the description of a call and may not be meant, in sentences. `before` is the model as it was,
    `leaving` how many of its workers leave for that.
    """
    found = []
    if before is not None and before.origin in (Origin.PACKAGE, Origin.NODE) and before.spec.source != now.spec.source:
        found.append(
            f"model '{now.name}' was {redacted(before.spec.source)} of {before.provenance}; what was given takes its "
            f"place until it is taken away again (`llorch models rm {now.name}`)"
        )
    if leaving:
        leave = "leaves memory: it was" if leaving == 1 else "leave memory: they were"
        found.append(f"{counted(leaving, 'worker')} of model '{now.name}' {leave} loaded as it was before")
    if now.spec.context and now.context < now.spec.context:
        found.append(
            f"context {now.spec.context} is more than model '{now.name}' was trained with: its workers get "
            f"{now.context}"
        )
    return found


def still_there(state: BrainState, name: str) -> list[str]:
    """What to say of a model that calls have set and that was deleted, if something else describes it too."""
    model = state.catalog.find(name)
    if model is None or model.name != name:
        return []
    remedy = f"`llorch models retire {name}` keeps tasks from it"
    return [f"model '{name}' is still in the catalog, as {model.provenance} describes it; {remedy}"]


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
