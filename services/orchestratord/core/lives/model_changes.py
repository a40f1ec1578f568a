"""The catalog changes: models are registered, retired and deleted, and workers of deleted models leave."""

from llorch.errors import FailedPrecondition, Reason
from llorch.options.model import LoadOptions
from llorch.options.option import values_of
from orchestratord.core.effects import PersistRecord
from orchestratord.core.events import ModelDeleted, ModelRegistered, ModelStateSet
from orchestratord.core.facts.fleet import Leaving
from orchestratord.core.facts.model import Description, Model, ModelRecord, Origin
from orchestratord.core.lives import model_unloading
from orchestratord.core.state import BrainState


def registered(state: BrainState, event: ModelRegistered) -> Model:
    """A model is added or changed. Workers that this makes outdated leave; while one is busy, the change is refused."""
    name = event.spec.name
    old, before = state.catalog.find(name), state.catalog.record_of(name)
    new = state.catalog.preview(Description(event.spec, event.origin, event.provenance, event.at_ms))
    is_reload = old is not None and old.name == name and _loads_as(old) != _loads_as(new)
    if is_reload:
        _refuse_if_running(state, new, "change it")
    model = state.catalog.register(event.spec, event.origin, event.provenance, event.at_ms)
    _keep(state, name, before)
    state.refusals.pop(name, None)
    if is_reload:
        _stop_workers(state, name)
    return model


def state_set(state: BrainState, event: ModelStateSet) -> Model:
    model = state.catalog.get(event.model)
    before = state.catalog.record_of(model.name)
    state.catalog.set_state(model.name, event.state)
    _keep(state, model.name, before)
    return model


def deleted(state: BrainState, event: ModelDeleted) -> None:
    model = state.catalog.get(event.model)
    _refuse_if_used(state, model, "delete it")
    before = state.catalog.record_of(model.name)
    state.catalog.delete(model.name)
    _keep(state, model.name, before)
    _forget(state, model.name)
    _stop_workers(state, model.name)


def _forget(state: BrainState, name: str) -> None:
    """Forgets what was noted of a deleted model."""
    state.demand.forget(name)
    state.refusals.pop(name, None)
    state.load_failures.pop(name, None)


def withdrawn(state: BrainState, name: str, origin: Origin) -> None:
    """One origin's description of a model is gone. Refused while the model is in use and would be gone with it."""
    model = state.catalog.get(name)
    if model.origin_of("source") is origin:
        _refuse_if_used(state, model, "take it away")
    state.catalog.withdraw(model.name, origin)
    if state.catalog.find(model.name) is None:
        _forget(state, model.name)
        _stop_workers(state, model.name)


def restore_model(state: BrainState, kept: ModelRecord | None, lost: ModelRecord | None) -> None:
    if kept is not None:
        state.catalog.restore(kept)
    elif lost is not None:
        state.catalog.restore(ModelRecord(lost.name))


def _keep(state: BrainState, name: str, before: ModelRecord | None) -> None:
    after = state.catalog.record_of(name)
    if after != before:
        state.emit(PersistRecord(before, after))


def _loads_as(model: Model) -> tuple[object, ...]:
    """The options that a worker is started with; others may change while it runs."""
    spec = model.spec
    said = spec.source, spec.split_shares, values_of(LoadOptions, spec)
    return *said, model.context, model.slots, model.cache_type, model.split


def _refuse_if_used(state: BrainState, model: Model, then: str) -> None:
    if state.queue.has_waiting(model.name) or model.name in state.loads:
        raise _in_use(model, then)
    _refuse_if_running(state, model, then)


def _refuse_if_running(state: BrainState, model: Model, then: str) -> None:
    if any(worker.attempts for worker in state.fleet.workers_of_model(model.name)):
        raise _in_use(model, then)


def _in_use(model: Model, then: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.MODEL_IN_USE, f"model '{model.name}' is in use; wait for its tasks or cancel them, then {then}"
    )


def _stop_workers(state: BrainState, name: str) -> None:
    for worker in list(state.fleet.workers_of_model(name)):
        model_unloading.leave(state, worker, Leaving.CHANGED)
