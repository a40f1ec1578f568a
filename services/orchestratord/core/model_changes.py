"""The catalog changes: models are registered, retired and deleted, and workers of what is no more leave."""

from llorch.errors import FailedPrecondition, Reason
from orchestratord.core import loading
from orchestratord.core.catalog import Model, ModelSpec
from orchestratord.core.events import ModelDeleted, ModelRegistered, ModelStateSet, WorkerStopAsked
from orchestratord.core.state import BrainState


def registered(state: BrainState, event: ModelRegistered) -> None:
    """A model is new, or changes. Workers that the change makes wrong leave; while one is busy, it is refused."""
    old = state.catalog.find(event.spec.name)
    is_reload = old is not None and old.name == event.spec.name and _loads_as(old.spec) != _loads_as(event.spec)
    if old is not None and is_reload:
        _refuse_if_running(state, old, "change it")
    state.catalog.register(event.spec, event.origin, event.provenance, state.now)
    state.refusals.pop(event.spec.name, None)
    if is_reload:
        _stop_workers(state, event.spec.name)


def state_set(state: BrainState, event: ModelStateSet) -> None:
    state.catalog.get(event.model).state = event.state


def deleted(state: BrainState, event: ModelDeleted) -> None:
    model = state.catalog.get(event.model)
    if state.queue.has_waiting(model.name) or model.name in state.loads:
        raise _in_use(model, "delete it")
    _refuse_if_running(state, model, "delete it")
    state.catalog.delete(model.name)
    _stop_workers(state, model.name)


def _loads_as(spec: ModelSpec) -> tuple[object, ...]:
    """What a worker is started with; the rest of a spec may change under it."""
    return spec.source, spec.context, spec.slots, spec.cache_type


def _refuse_if_running(state: BrainState, model: Model, then: str) -> None:
    if any(worker.attempts for worker in state.fleet.workers_of_model(model.name)):
        raise _in_use(model, then)


def _in_use(model: Model, then: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.MODEL_IN_USE, f"model '{model.name}' is in use; wait for its tasks or cancel them, then {then}"
    )


def _stop_workers(state: BrainState, name: str) -> None:
    for worker in list(state.fleet.workers_of_model(name)):
        loading.stop_asked(state, WorkerStopAsked(worker.worker_id, even_if_busy=False))
