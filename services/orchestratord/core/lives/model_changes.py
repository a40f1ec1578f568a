"""The catalog changes: models are registered, retired and deleted, and workers of deleted models leave."""

from dataclasses import replace
from functools import partial

from llorch.errors import FailedPrecondition, Reason
from llorch.options.model import LoadOptions
from llorch.options.option import values_of
from orchestratord.core.events import ModelDeleted, ModelRegistered, ModelStateSet
from orchestratord.core.facts.catalog import model_record
from orchestratord.core.facts.fleet import Leaving
from orchestratord.core.facts.model import Description, Model, ModelRecord, Origin
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import TaskError
from orchestratord.core.lives import forgetting, model_unloading, task_life
from orchestratord.core.state import BrainState

Options = tuple[object, ...]
"""What a worker is started with; other options may change while it runs."""


def registered(state: BrainState, event: ModelRegistered) -> Model:
    """A model is added or changed. Workers that this makes outdated leave; while one is busy, the change is refused.

    Only what a call says is stored; anything else is said again at the next start.
    """
    name = event.spec.name
    at_ms = event.at_ms or state.ms_now  # what is said at each start says no time
    said = Description(event.spec, event.origin, event.provenance, at_ms)
    new = state.catalog.preview(said)
    old = _loads_as(state, name)
    if old is not None and old != _options(new):
        _refuse_if_running(state, new, "change it")
    if event.origin is Origin.CALL:
        _propose(state, name, model_record(name, new.state, said))
        return new
    model = state.catalog.register(event.spec, event.origin, event.provenance, at_ms)
    _follow(state, name, old)
    return model


def state_set(state: BrainState, event: ModelStateSet) -> Model:
    model = state.catalog.get(event.model)
    _propose(state, model.name, model_record(model.name, event.state, state.catalog.described(model.name, Origin.CALL)))
    return replace(model, state=event.state)


def deleted(state: BrainState, event: ModelDeleted) -> None:
    model = state.catalog.get(event.model)
    _refuse_if_used(state, model, "delete it")
    state.catalog.refuse_to_delete(model)
    stays = state.catalog.is_described(model.name, without=Origin.CALL)  # by a package, for example: as it is, retired
    _propose(state, model.name, model_record(model.name, model.state, None) if stays else None)


def withdrawn(state: BrainState, name: str, origin: Origin) -> None:
    """One origin's description of a model is gone. Refused while the model is in use and would be gone with it."""
    model = state.catalog.get(name)
    if model.origin_of("source") is origin:
        _refuse_if_used(state, model, "take it away")
    old = _loads_as(state, model.name)
    state.catalog.withdraw(model.name, origin)
    _follow(state, model.name, old)


def restore_model(state: BrainState, record: ModelRecord) -> None:
    state.catalog.restore(record)


def _propose(state: BrainState, name: str, after: ModelRecord | None) -> None:
    state.propose(partial(_changed, state, name, after), RecordChange(state.catalog.record_of(name), after))


def _changed(state: BrainState, name: str, after: ModelRecord | None) -> None:
    old = _loads_as(state, name)
    state.catalog.restore(after or ModelRecord(name))
    _follow(state, name, old)


def _follow(state: BrainState, name: str, old: Options | None) -> None:
    """Workers that were loaded otherwise leave when what runs there has ended; of a model that is gone, all do."""
    new = _loads_as(state, name)
    state.refusals.pop(name, None)
    if new is None:
        _forget(state, name)
    if old is not None and new != old:
        state.load_failures.pop(name, None)  # that was another load
        forgetting.file_left(state, str(old[0]))  # its source comes first
        for worker in list(state.fleet.workers_of_model(name)):
            model_unloading.leave(state, worker, Leaving.CHANGED)
    model_unloading.watch_workers(state, name)


def _forget(state: BrainState, name: str) -> None:
    """Nothing is known of the model any more. Tasks and loads may have come while its end was being stored."""
    model_unloading.give_up_loads(state, name)
    gone = TaskError(Reason.MODEL_NOT_FOUND, f"model '{name}' was deleted while this task waited for it")
    task_life.fail_waiting(state, name, gone)
    forgetting.model_gone(state, name)


def _loads_as(state: BrainState, name: str) -> Options | None:
    """None if no model has this name; an alias is none."""
    model = state.catalog.find(name)
    return _options(model) if model is not None and model.name == name else None


def _options(model: Model) -> Options:
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
