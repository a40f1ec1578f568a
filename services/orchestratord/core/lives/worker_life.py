"""Workers become ready, fall silent, and end; what ran on them and what they held goes with them."""

from llorch.errors import Reason
from llorch.worker_state import WorkerState
from orchestratord.core.effects import AttachWorker, DetachWorker
from orchestratord.core.events import WorkerAttached, WorkerSilent, WorkerStartFailed
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.fleet import Endpoint, EngineFacts, Leaving, Worker
from orchestratord.core.facts.loads import Load
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import (
    attempt_loss,
    found_runs,
    learning,
    measuring,
    model_loading,
    model_unloading,
    pools,
    task_dispatch,
)
from orchestratord.core.placement import allowances
from orchestratord.core.placement.worker_specs import what_was_loaded
from orchestratord.core.state import BrainState


def start_failed(state: BrainState, event: WorkerStartFailed) -> None:
    """If the node has reported the worker as ready meanwhile, only the answer got lost: the node's reports count.

    Where it is not known whether the node received the command, it may start the worker all the same: it is told to
    end the worker, whose memory counts as taken until its node shows that it is not there.
    """
    worker = state.fleet.workers.get(event.worker_id)
    if worker is None:
        return
    if event.command_seq is not None:
        worker.start_seq = event.command_seq
    if worker.state is WorkerState.READY:
        worker.start_seq = worker.start_seq or 0
        return
    model_loading.refuse_node(state, worker.spec.model, worker.node_id, event.reason, event.message)
    if event.command_seq is None:
        gone(state, worker, Loss.STOPPED, event.message)
    else:
        state.loads.remove(worker.worker_id)
        model_unloading.stop(state, worker, Leaving.STUCK)
        state.look_again = True


def became_ready(state: BrainState, worker: Worker, engine: EngineFacts, endpoint: Endpoint) -> None:
    """The node reports the worker as loaded: charge the memory that it really takes, and open the link to it."""
    worker.state, worker.engine, worker.endpoint = WorkerState.READY, engine, endpoint
    worker.last_used_at = state.now
    keys = [(worker.node_id, device_id) for device_id in worker.spec.device_ids]
    state.ledger.measured(worker.worker_id, dict(zip(keys, engine.memory_mib, strict=False)))
    measuring.learn(state, worker)
    state.fleet.nodes[worker.node_id].note_fingerprint(what_was_loaded(worker.spec), engine.fingerprint)
    _learn_load_time(state, worker)
    state.load_failures.pop(worker.spec.model, None)
    state.loads.remove(worker.worker_id)
    if any(isinstance(lane, Lane) and lane.promise for lane in state.queue.lanes_of(worker.spec.model)):
        state.look_again = True  # a task waited for a certain fingerprint, and now it is known whether this is it
    state.emit(AttachWorker(worker.worker_id, endpoint))


def moved(state: BrainState, worker: Worker, endpoint: Endpoint) -> None:
    """It is reached elsewhere now: its host has another address. What runs there goes on."""
    worker.endpoint = endpoint
    state.emit(DetachWorker(worker.worker_id), AttachWorker(worker.worker_id, endpoint))
    _heard_of(worker)  # it may have been silent at the old address for long
    silent(state, WorkerSilent(worker.worker_id))


def attached(state: BrainState, event: WorkerAttached) -> None:
    worker = state.fleet.workers.get(event.worker_id)
    if worker is None:
        return
    worker.attached, worker.was_attached, worker.refused = True, True, None
    _heard_of(worker)
    state.fleet.silent.discard(worker.worker_id)
    if worker.ready_at is None:
        _begin_residency(state, worker)
    attempt_loss.worker_is_back(state, worker)
    task_dispatch.cancel_again(state, worker)
    task_dispatch.dispatch_model(state, worker.spec.model)


def silent(state: BrainState, event: WorkerSilent) -> None:
    """Its frames stopped. Its attempts are lost if attaching again takes too long, or when its exit is reported."""
    worker = state.fleet.workers.get(event.worker_id)
    if worker is None:
        return
    worker.refused = event.refused
    if worker.reattach_until is None:
        worker.attached = False
        worker.reattach_until = state.now + state.config.reattach_s
        state.fleet.silent.add(worker.worker_id)


def give_time_to_reattach(state: BrainState, node_id: str) -> None:
    """The node is back: workers of it that fell silent meanwhile may be about to be reached again."""
    for worker in state.fleet.workers_on(node_id):
        if worker.reattach_until is None:
            continue
        worker.reattach_until = state.now + state.config.reattach_s
        if worker.expected_until is None:
            worker.expected_until = worker.reattach_until
            state.timers.at(worker.expected_until, TimerKind.EXPECTED, worker.worker_id)


def reattach_overdue(state: BrainState) -> None:
    """Attaching took too long: what runs there may go on elsewhere, and a worker that is held to be stuck is stopped.

    One that could never be reached would not be next time: no load of the model goes to its node until it is asked for.
    One that obeys another orchestrator is ended by its node, which follows this one, and its successor obeys.
    """
    for worker in [state.fleet.workers[worker_id] for worker_id in sorted(state.fleet.silent)]:
        if worker.reattach_until is None or state.now < worker.reattach_until:
            continue
        if not worker.is_overdue:
            worker.is_overdue = state.look_again = True
            attempt_loss.worker_out_of_reach(state, worker)
        if worker.state is WorkerState.READY and state.fleet.node_is_ready(worker) and _is_stuck(state, worker):
            reason, message = worker.refused or (Reason.UPSTREAM_UNAVAILABLE, "")
            if not worker.was_attached and reason is not Reason.STALE_EPOCH:
                why = _refuses(worker, message) if message else _unreachable(worker)
                model_loading.refuse_node(state, worker.spec.model, worker.node_id, reason, why, worker.worker_id)
            model_unloading.stop(state, worker, Leaving.STUCK)
            state.look_again = True


def _is_stuck(state: BrainState, worker: Worker) -> bool:
    """Rather than behind a line that is cut, or slow: its node does not hear of it either, or it refuses this
    orchestrator, or it was started by this orchestrator and never attached, or it has been silent for as long as it
    keeps runs without a reader.
    """
    assert worker.reattach_until is not None  # it is silent
    silent_for_long = state.now >= worker.reattach_until + state.config.detach_grace_s
    may_be_reached = worker.was_attached or worker.was_found
    return silent_for_long or not worker.answers or worker.refused is not None or not may_be_reached


def gone(state: BrainState, worker: Worker, loss: Loss, why: str) -> None:
    """The process has ended and its memory is back: its slots and its reservation are released."""
    until = state.now + state.config.memory_return_s
    if state.ledger.release_ended(worker.worker_id, until):
        state.timers.at(until, TimerKind.MEMORY_BACK, worker.worker_id)
    _forget(state, worker)
    attempt_loss.worker_gone(state, worker, loss, why)


def hung(state: BrainState, worker: Worker) -> None:
    """It was stopped, as it did not answer its node either: what ran there may be why, as where it ends by itself."""
    state.ledger.release(worker.worker_id)
    _forget(state, worker)
    attempt_loss.worker_ended(state, worker, "the worker that ran the task did not answer any more and was stopped")


def failed(state: BrainState, worker: Worker, reason: Reason, message: str) -> None:
    """It ended by itself: its memory counts again once its device shows it free.

    If it was still loading, no load of the model goes to its node until the model is asked for again.
    """
    until = state.now + state.config.memory_return_s
    state.ledger.release_when_back(worker.worker_id, until)
    state.timers.at(until, TimerKind.MEMORY_BACK, worker.worker_id)
    if worker.state is WorkerState.STARTING:
        model_loading.refuse_node(state, worker.spec.model, worker.node_id, reason, message, worker.worker_id)
    _forget(state, worker)
    attempt_loss.worker_ended(state, worker, f"the worker that ran the task ended: {message}")


def memory_wait_over(state: BrainState, _: str) -> None:
    if state.ledger.expire_returns(state.now):
        state.look_again = True


def residency_over(state: BrainState, worker_id: str) -> None:
    """From now on it may be evicted; perhaps a load waits for that."""
    if worker_id in state.fleet.workers:
        state.look_again = True


def expected_no_more(state: BrainState, worker_id: str) -> None:
    """From now on another worker may be loaded in its place."""
    if worker_id in state.fleet.workers:
        state.look_again = True


def _heard_of(worker: Worker) -> None:
    worker.reattach_until, worker.is_overdue, worker.expected_until = None, False, None


def _begin_residency(state: BrainState, worker: Worker) -> None:
    worker.ready_at = worker.last_used_at = state.now
    worker.grant = int(state.queue.count(worker.spec.model, allowances.may_start(state, worker.spec.model)))
    state.timers.at(state.now + state.config.min_residency_s, TimerKind.RESIDENCY, worker.worker_id)
    model_unloading.watch_workers(state, worker.spec.model)


def _learn_load_time(state: BrainState, worker: Worker) -> None:
    """Of a load that was watched from its beginning; an adopted worker was loaded before this orchestrator's start."""
    if (load := state.loads.get(worker.worker_id)) is not None:
        took_s = state.now - worker.asked_at
        _settle(state, load, took_s)
        model = state.catalog.find(worker.spec.model)
        size_mib = model.size_mib if model is not None else None
        learning.worker_loaded(state, worker, size_mib, took_s * 1000)


def _settle(state: BrainState, load: Load, took_s: float) -> None:
    """The app that pays for the load pays for what it took, to its end or not."""
    if load.payer is not None:
        state.queue.accounts.correct(load.payer, took_s * load.share - load.charged_s)


def _forget(state: BrainState, worker: Worker) -> None:
    if (load := state.loads.get(worker.worker_id)) is not None:
        _settle(state, load, state.now - worker.asked_at)
    state.fleet.remove_worker(worker.worker_id)
    state.warmth.worker_gone(worker.worker_id)
    state.timers.cancel(worker.worker_id, TimerKind.IDLE, TimerKind.RESIDENCY, TimerKind.EXPECTED)
    state.emit(DetachWorker(worker.worker_id))
    state.loads.remove(worker.worker_id)
    model_loading.memory_came_back(state, worker.worker_id)
    pools.worker_gone(state, worker)
    found_runs.look_whether_all_told(state)
    state.look_again = True


def _refuses(worker: Worker, message: str) -> str:
    return f"the worker on node '{worker.node_id}' is ready, but refuses this orchestrator: {message}"


def _unreachable(worker: Worker) -> str:
    address = worker.endpoint.address if worker.endpoint else "its address"
    return (
        f"the worker on node '{worker.node_id}' is ready but can't be reached at {address} from the orchestrator; open "
        "its ports in the firewall, or set advertise_host there"
    )
