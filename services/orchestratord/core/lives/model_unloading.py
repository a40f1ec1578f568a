"""Workers leave memory: because a caller asks, because no task uses them, because the space is needed."""

from llorch.counted import counted
from llorch.errors import FailedPrecondition, Reason
from llorch.worker_state import WorkerState
from orchestratord.core.effects import SessionToSave, StopWorker
from orchestratord.core.events import ModelUnloadAsked, WorkerStopAsked
from orchestratord.core.facts.fleet import Leaving, Worker
from orchestratord.core.facts.loads import Load
from orchestratord.core.facts.sessions import Session
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.placement import replicas
from orchestratord.core.state import BrainState


def leave(state: BrainState, worker: Worker, why: Leaving) -> None:
    """The worker takes no new runs, and ends as soon as nothing runs on it: now, if nothing does."""
    if worker.leaving is None:
        worker.leaving = why
    if not worker.attempts:
        stop(state, worker, why)


def leave_if_due(state: BrainState, worker: Worker) -> None:
    """Its last run has ended: a worker that is leaving ends now."""
    if worker.leaving is not None and not worker.attempts:
        stop(state, worker, worker.leaving)


def stop(state: BrainState, worker: Worker, why: Leaving) -> None:
    """End the worker with whatever runs on it."""
    if worker.state is not WorkerState.STOPPING:
        worker.state, worker.leaving = WorkerState.STOPPING, why
        state.ledger.begins_to_end(worker.worker_id)
        tell_to_end(state, worker)


def tell_to_end(state: BrainState, worker: Worker) -> None:
    """For the first time, or again where that got lost; each time with the sessions that it is to save."""
    why = worker.leaving or Leaving.ASKED
    state.emit(StopWorker(worker.node_id, worker.worker_id, why, _to_save(state, worker)))


def stop_asked(state: BrainState, event: WorkerStopAsked) -> None:
    worker = state.fleet.worker(event.worker_id)
    if not event.even_if_busy:
        _refuse_if_busy(worker, "stop it with even_if_busy")
    stop(state, worker, Leaving.ASKED)


def unload_asked(state: BrainState, event: ModelUnloadAsked) -> list[str]:
    """All workers of the model go, or none: while one is busy it is refused, unless busy ones are to go as well."""
    model = state.catalog.get(event.model)
    if replicas.least(state, model.name):
        raise FailedPrecondition(
            Reason.OTHER_STATE_NEEDED,
            f"model '{model.name}' is to stay loaded by an assignment; change that first (`llorch assignments`)",
        )
    workers = [worker for worker in state.fleet.workers_of_model(model.name) if worker.serves]
    if not event.even_if_busy:
        for worker in workers:
            _refuse_if_busy(worker, f"set even_if_busy (`llorch unload {model.name} --force`)")
    give_up_loads(state, model.name)
    for worker in workers:
        stop(state, worker, Leaving.ASKED)
    return sorted(worker.worker_id for worker in workers)


def give_up_loads(state: BrainState, name: str) -> None:
    """The model is to be loaded no more. Workers that are being started are there, and have to go by themselves."""
    for load in state.loads.of_model(name):
        end_load(state, load)


def end_load(state: BrainState, load: Load) -> None:
    """It is not to be carried out. What would have left for it stays, if it still works."""
    state.loads.remove(load.load_id)
    let_stay(state, load)


def let_stay(state: BrainState, load: Load) -> None:
    """The load does not wait for workers any more. What it was promised is not there for it."""
    state.ledger.withdraw_promise(load.load_id)
    wait_no_more(state, load)


def wait_no_more(state: BrainState, load: Load) -> None:
    """The load waits for no worker any more, as it has its room, or is not to be carried out. What leaves for the load
    of no other model stays, if it still works; and none of its own model is loaded in its place.
    """
    waits_for, load.waits_for = load.waits_for, set()
    for worker_id in sorted(waits_for):
        worker = state.fleet.workers.get(worker_id)
        if worker is None or worker.leaving is not Leaving.EVICTED or worker.state is not WorkerState.READY:
            continue
        waiting = [other for other in state.loads.values() if worker_id in other.waits_for]
        if all(other.model == worker.spec.model and not other.asked for other in waiting):
            worker.leaving = None
            state.look_again = True
            for other in waiting:
                end_load(state, other)


def watch_workers(state: BrainState, name: str) -> None:
    """How long workers of the model may be idle has changed: by a rule, by its options, or by how many there are."""
    for worker in state.fleet.workers_of_model(name):
        if worker.ready_at is not None:
            _watch_idleness(state, worker)


def idle_check(state: BrainState, worker_id: str) -> None:
    worker = state.fleet.workers.get(worker_id)
    if worker is None or not worker.serves:
        return
    limit_s = replicas.idle_limit_s(state, worker)
    if limit_s is not None and worker.is_idle and state.now - worker.last_used_at >= limit_s:
        leave(state, worker, Leaving.IDLE)
    else:
        _watch_idleness(state, worker)


def _watch_idleness(state: BrainState, worker: Worker) -> None:
    """Look at the worker when it will have been idle for its time. One that may be idle for ever is looked at now and
    then: that it may can pass without a word here, as when a node comes back with another worker of the model.
    """
    limit_s = replicas.idle_limit_s(state, worker)
    since = worker.last_used_at if worker.is_idle and limit_s is not None else state.now
    look_at = since + (state.config.replica_idle_s if limit_s is None else limit_s)
    state.timers.at(look_at, TimerKind.IDLE, worker.worker_id)


def _to_save(state: BrainState, worker: Worker) -> tuple[SessionToSave, ...]:
    """Its sessions, those first that were used last; none of a pool that is purged, where nothing is to stay."""
    if state.drains.purges(worker.node_id, worker.spec.device_ids):
        return ()
    found = [
        SessionToSave(session.app, session.session_id, keep_s)
        for session in state.sessions.of_worker(worker.worker_id)
        if (keep_s := _time_left_s(state, session)) > 0
    ]
    return tuple(sorted(found, key=lambda it: it.keep_s, reverse=True))


def _time_left_s(state: BrainState, session: Session) -> float:
    """A session with tasks is used: its time begins when they have ended."""
    if state.sessions.is_busy(session):
        return state.config.session_ttl_s
    return state.sessions.expires_at(session) - state.now


def _refuse_if_busy(worker: Worker, remedy: str) -> None:
    if worker.attempts:
        raise FailedPrecondition(
            Reason.MODEL_IN_USE,
            f"worker '{worker.worker_id}' of model '{worker.spec.model}' runs {counted(len(worker.attempts), 'task')}; "
            f"wait for that, or {remedy}",
        )
