"""Models come into memory and leave it: stage the file, make room, start a worker, tell those who wait."""

from llorch.errors import FailedPrecondition, Reason
from orchestratord.core import dispatch, ending
from orchestratord.core.catalog import Model
from orchestratord.core.effects import (
    AttachWorker,
    DetachWorker,
    Narrate,
    ReleaseRuns,
    StageModel,
    StartWorker,
    StopWorker,
)
from orchestratord.core.events import (
    ModelStaged,
    RunsFound,
    StagingFailed,
    WorkerAttached,
    WorkerSilent,
    WorkerStartAccepted,
    WorkerStartFailed,
    WorkerStopAsked,
)
from orchestratord.core.fleet import Endpoint, EngineFacts, Node, NodeState, Worker, WorkerSpec, WorkerState
from orchestratord.core.memory_estimate import estimate_mib
from orchestratord.core.placement import Candidate, Decision, place
from orchestratord.core.state import BrainState, Load, LoadPhase
from orchestratord.core.task import TaskError


def ensure_loaded(state: BrainState, name: str) -> None:
    """If somebody waits for the model and no worker of it is there or on its way, take the next step towards one."""
    model = state.catalog.find(name)
    if model is None or not state.queue.has_waiting(name) or name in state.loads:
        return
    if is_served(state, name):
        return
    refused = state.refusals.get(name, {})
    needed_mib = 0 if model.size_mib is None else estimate_mib(model, model.size_mib)
    decision = place(state.fleet, state.ledger, needed_mib, frozenset(refused))
    if decision.chosen is not None:
        _load_on(state, model, decision.chosen, needed_mib)
    elif not decision.waits and (error := _why_nowhere(state, model, decision, refused)):
        ending.fail_waiting(state, name, error)


def is_served(state: BrainState, name: str) -> bool:
    """Whether a worker of the model is there or on its way, on a node that can be reached."""
    workers = state.fleet.workers_of_model(name)
    return any(worker.state is not WorkerState.STOPPING and state.fleet.node_is_ready(worker) for worker in workers)


def look_again(state: BrainState) -> None:
    """Something became free or came: serve whoever waits for a model, the longest waiting first."""
    state.look_again = False
    for name in state.queue.models():
        dispatch.dispatch_model(state, name)
        ensure_loaded(state, name)


def describe_load(state: BrainState, name: str) -> str | None:
    """What a task that waits for this model waits for, for its reader."""
    load = state.loads.get(name)
    if load is None:
        return None
    if load.phase is LoadPhase.STAGING:
        return f"looking for the file of {name} on {load.node_id}"
    if load.phase is LoadPhase.MAKING_ROOM:
        return f"making room for {name} on {load.node_id}: {len(load.waits_for)} idle model(s) leave"
    return f"loading {name} on {_devices_of(state, load)} of {load.node_id}"


def fits_nowhere(model: Model, decision: Decision) -> str:
    needed = estimate_mib(model, model.size_mib or 0)
    return (
        f"model '{model.name}' needs about {needed} MiB with context {model.context} and {model.slots} slots; the "
        f"largest device holds {decision.largest_mib} MiB when empty; lower its context or slots, take a smaller "
        "quantization, or a larger device"
    )


def staged(state: BrainState, event: ModelStaged) -> None:
    node = state.fleet.nodes.get(event.node_id)
    if node is not None:
        node.staged[event.source] = event.size_mib
    for model in state.catalog.all():
        if model.spec.source == event.source:
            model.size_mib, model.facts = event.size_mib, event.facts or model.facts
    _end_staging(state, event.node_id, event.source)


def staging_failed(state: BrainState, event: StagingFailed) -> None:
    for model in state.catalog.all():
        if model.spec.source == event.source:
            _refuse(state, model.name, event.node_id, event.reason, event.message)
    _end_staging(state, event.node_id, event.source)


def start_accepted(state: BrainState, event: WorkerStartAccepted) -> None:
    if worker := state.fleet.workers.get(event.worker_id):
        worker.start_seq = event.command_seq


def start_failed(state: BrainState, event: WorkerStartFailed) -> None:
    """If the node has reported the worker as ready meanwhile, only the answer got lost: its reports count from now."""
    worker = state.fleet.workers.get(event.worker_id)
    if worker is None:
        return
    if worker.state is WorkerState.READY:
        worker.start_seq = 0
        return
    _refuse(state, worker.spec.model, worker.node_id, event.reason, event.message)
    worker_gone(state, worker, event.message)


def worker_ready(state: BrainState, worker: Worker, engine: EngineFacts, endpoint: Endpoint) -> None:
    """Its node says that it is loaded: charge what it really takes, and open the link to it."""
    worker.state, worker.engine, worker.endpoint = WorkerState.READY, engine, endpoint
    worker.last_used_at = state.now
    keys = [(worker.node_id, device_id) for device_id in worker.spec.device_ids]
    state.ledger.measured(worker.worker_id, dict(zip(keys, engine.memory_mib, strict=False)))
    load = state.loads.get(worker.spec.model)
    if load is not None and load.worker_id == worker.worker_id:
        del state.loads[worker.spec.model]
    state.emit(AttachWorker(worker.worker_id, endpoint))


def worker_attached(state: BrainState, event: WorkerAttached) -> None:
    if worker := state.fleet.workers.get(event.worker_id):
        worker.attached, worker.was_attached, worker.reattach_until = True, True, None
        dispatch.cancel_again(state, worker)
        dispatch.dispatch_model(state, worker.spec.model)


def worker_silent(state: BrainState, event: WorkerSilent) -> None:
    """Its frames stopped. Its attempts are lost if attaching again takes too long, or when its exit is reported."""
    worker = state.fleet.workers.get(event.worker_id)
    if worker is not None and worker.reattach_until is None:
        worker.attached = False
        worker.reattach_until = state.now + state.config.reattach_s


def reattach_overdue(state: BrainState) -> None:
    """Attaching took too long: what ran there is lost. A worker whose node still answers is stuck, and is stopped.

    One that could never be reached would not be next time: its node is out for this model until somebody asks again.
    """
    for worker in list(state.fleet.workers.values()):
        if worker.reattach_until is None or state.now < worker.reattach_until:
            continue
        _lose_all(state, worker, "the worker that ran the task no longer answers")
        if worker.state is WorkerState.READY and state.fleet.node_is_ready(worker):
            if not worker.was_attached:
                _refuse(state, worker.spec.model, worker.node_id, Reason.UPSTREAM_UNAVAILABLE, _unreachable(worker))
            _stop(state, worker)
            state.look_again = True


def give_up_loads(state: BrainState, node_id: str) -> None:
    """The node can't be reached: nobody waits for its loads. A worker that it brings all the same is used."""
    for load in [load for load in state.loads.values() if load.node_id == node_id]:
        del state.loads[load.model]


def runs_found(state: BrainState, event: RunsFound) -> None:
    """Runs that nobody here knows any more are released; they are of an earlier life of the orchestrator."""
    unknown = tuple(attempt_id for attempt_id in event.attempt_ids if attempt_id not in state.attempts)
    if unknown:
        state.emit(ReleaseRuns(event.worker_id, unknown))


def worker_gone(state: BrainState, worker: Worker, why: str) -> None:
    """The process is no more and its memory is back: slots and reservation go with it."""
    state.fleet.remove_worker(worker.worker_id)
    state.ledger.release(worker.worker_id)
    state.emit(DetachWorker(worker.worker_id))
    _lose_all(state, worker, why)
    _end_loads_waiting_for(state, worker)
    state.look_again = True


def worker_failed(state: BrainState, worker: Worker, reason: Reason, message: str) -> None:
    """It ended by itself. If it was still loading, its node is out for this model until somebody asks again."""
    if worker.state is WorkerState.STARTING:
        _refuse(state, worker.spec.model, worker.node_id, reason, message)
    worker_gone(state, worker, f"the worker that ran the task ended: {message}")


def stop_asked(state: BrainState, event: WorkerStopAsked) -> None:
    worker = state.fleet.worker(event.worker_id)
    if worker.attempts and not event.even_if_busy:
        raise FailedPrecondition(
            Reason.MODEL_IN_USE,
            f"worker '{worker.worker_id}' runs {len(worker.attempts)} task(s); wait for them, or ask with even_if_busy",
        )
    _stop(state, worker)


def _load_on(state: BrainState, model: Model, place_: Candidate, needed_mib: int) -> None:
    node_id = place_.node.node_id
    if model.spec.source not in place_.node.staged:
        state.loads[model.name] = Load(model.name, model.spec.source, node_id, LoadPhase.STAGING)
        state.emit(StageModel(node_id, model.spec.source))
    elif place_.evicts:
        load = Load(model.name, model.spec.source, node_id, LoadPhase.MAKING_ROOM, waits_for=set(place_.evicts))
        state.loads[model.name] = load
        for worker_id in place_.evicts:
            _stop(state, state.fleet.workers[worker_id])
    else:
        _start(state, model, place_, needed_mib)
    _tell_waiting(state, model.name)


def _start(state: BrainState, model: Model, place_: Candidate, needed_mib: int) -> None:
    node_id, device_id = place_.node.node_id, place_.device.device_id
    spec = WorkerSpec(
        worker_id=state.new_id("worker"),
        model=model.name,
        source=model.spec.source,
        device_ids=(device_id,),
        slots=model.slots,
        context_per_slot=model.context,
        cache_type=model.spec.cache_type,
        reservation_mib=(needed_mib,),
    )
    state.ledger.reserve(spec.worker_id, {(node_id, device_id): needed_mib})
    state.fleet.add_worker(Worker(spec, node_id, asked_at=state.now))
    state.loads[model.name] = Load(model.name, spec.source, node_id, LoadPhase.STARTING, spec.worker_id)
    state.emit(StartWorker(node_id, spec))


def _stop(state: BrainState, worker: Worker) -> None:
    if worker.state is not WorkerState.STOPPING:
        worker.state = WorkerState.STOPPING
        state.emit(StopWorker(worker.node_id, worker.worker_id))


def _tell_waiting(state: BrainState, name: str) -> None:
    sentence = describe_load(state, name)
    if sentence is not None:
        state.emit(*(Narrate(task_id, sentence) for task_id in state.queue.waiting_for(name)))


def _devices_of(state: BrainState, load: Load) -> str:
    worker = state.fleet.workers[load.worker_id]
    devices = state.fleet.nodes[load.node_id].devices
    return " + ".join(devices[device_id].name for device_id in worker.spec.device_ids if device_id in devices)


def _refuse(state: BrainState, name: str, node_id: str, reason: Reason, message: str) -> None:
    """The node is out for this model until somebody asks again.

    One that is just ending is asked again by itself: when it is back, or if it reports all the same.
    """
    node = state.fleet.nodes.get(node_id)
    if node is not None and reason is Reason.DRAINING:
        node.state = NodeState.SUSPECT
        return
    state.refusals.setdefault(name, {})[node_id] = TaskError(reason, message)


def _unreachable(worker: Worker) -> str:
    address = worker.endpoint.address if worker.endpoint else "its address"
    return (
        f"the worker on node '{worker.node_id}' is ready but can't be reached at {address} from the orchestrator; open "
        "its ports in the firewall, or set advertise_host there"
    )


def _end_staging(state: BrainState, node_id: str, source: str) -> None:
    """Found by the source: the model may have got another one since, and then needs another file."""
    for load in list(state.loads.values()):
        if load.phase is LoadPhase.STAGING and (load.node_id, load.source) == (node_id, source):
            del state.loads[load.model]
            state.look_again = True


def _end_loads_waiting_for(state: BrainState, worker: Worker) -> None:
    """Its own load, and loads that waited for its memory, are over; those who wait are looked at afresh."""
    for name, load in list(state.loads.items()):
        load.waits_for.discard(worker.worker_id)
        waited_long_enough = load.phase is LoadPhase.MAKING_ROOM and not load.waits_for
        if waited_long_enough or load.worker_id == worker.worker_id:
            del state.loads[name]


def _lose_all(state: BrainState, worker: Worker, why: str) -> None:
    for attempt_id in sorted(worker.attempts):
        ending.lose_attempt(state, state.attempts[attempt_id], why)


def _why_nowhere(
    state: BrainState, model: Model, decision: Decision, refused: dict[str, TaskError]
) -> TaskError | None:
    """The error for those who wait, now that no place is left; None if a node or a device may still come."""
    if any(_may_come_back(state, node) for node in state.fleet.nodes.values()):
        return None
    if refused:
        return next(iter(refused.values()))
    if model.size_mib is not None and decision.has_usable:
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, fits_nowhere(model, decision))
    return None


def _may_come_back(state: BrainState, node: Node) -> bool:
    is_lost = state.now - node.last_report_at >= state.config.no_device_grace_s
    return node.state is NodeState.SUSPECT and not is_lost
