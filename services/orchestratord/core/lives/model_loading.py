"""Models come into memory: find a place, stage the file, make room, start a worker."""

from collections.abc import Iterator
from itertools import islice

from llorch.errors import FailedPrecondition, LlorchError, Reason, Unavailable
from llorch.worker_spec import WorkerSpec
from orchestratord.core.effects import Narrate, StageModel, StartWorker
from orchestratord.core.events import ModelLoadAsked, ModelStaged, StagingFailed, WorkerStartAccepted
from orchestratord.core.facts.catalog import Model, ModelState
from orchestratord.core.facts.decision import Outcome
from orchestratord.core.facts.fleet import Leaving, Node, NodeState, Worker
from orchestratord.core.facts.loads import Load, LoadFailure, LoadPhase, Plan
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import decision_record, model_unloading, sources, task_dispatch, task_life, yielding
from orchestratord.core.placement import replicas
from orchestratord.core.placement.lanes import no_place_left
from orchestratord.core.placement.load_planning import Outlook, may_ever_fit, outlook
from orchestratord.core.placement.tally import NO_ROOM
from orchestratord.core.state import BrainState

_GIVEN_AWAY = {"device_released": "released to its owner", "pool_draining": "in a drained pool"}
"""Filters that leave no device for a time that somebody else decides; whoever waits is told instead."""

LOOKS_AT_ONCE = 16
"""Models for which a place is looked for after one event."""

_TOLD_AT_MOST = 32
"""Readers of this many tasks hear what they wait for; the rest of a long queue hears it when its turn is near."""


def ensure_loaded(state: BrainState, name: str) -> None:
    """Take the next step towards a worker for everybody who waits for the model, and for those who want it kept."""
    model = state.catalog.find(name)
    if model is None:
        return
    for lane in _lanes(state, model):
        while replicas.wants_another(state, lane) and _may_try(state, model.name):
            if not _begin(state, model, lane):
                break


def look_again(state: BrainState) -> None:
    """Something became free or came: serve whoever waits for a model, the longest waiting first.

    To find no place costs time for every model that waits for one, so where very many do, the rest has to wait for the
    next event or tick. Who was looked at last comes last then.
    """
    state.look_again = False
    for load in state.loads.values():
        if load.phase is LoadPhase.WAITING:
            _try_again(state, load)
    for name in state.queue.models():
        task_dispatch.dispatch_model(state, name)
        state.to_look_at[name] = None
    for name in state.assignments.kept_models():
        state.to_look_at[name] = None
    go_on_looking(state)


def look_is_due(state: BrainState, _: str) -> None:
    if state.next_look_at is not None and state.now >= state.next_look_at:
        state.next_look_at = None
        state.look_again = True


def go_on_looking(state: BrainState) -> None:
    for name in list(islice(state.to_look_at, LOOKS_AT_ONCE)):
        del state.to_look_at[name]
        ensure_loaded(state, name)


def is_served(state: BrainState, name: str) -> bool:
    """Whether a worker of the model is there or on its way, on a node that can be reached."""
    return any(worker.serves and state.fleet.node_is_ready(worker) for worker in state.fleet.workers_of_model(name))


def load_asked(state: BrainState, event: ModelLoadAsked) -> None:
    """Load the model whether tasks wait or not. One that is there or on its way will do, unless another is wanted.

    Refused if it could not be loaded even if everybody left; otherwise it waits for its turn.
    """
    model = state.catalog.get_active(event.model)
    if not event.anew and _there_already(state, model, event.places):
        return
    _refuse_without_device(state)
    load = Load(event.load_id, model.name, model.spec.source, Lane(model.name), state.now, asked=True)
    load.places = event.places
    looked = outlook(state, model, load.lane, places=event.places)
    if looked.plan is None and not looked.waits:
        error = _why_nowhere(state, model, looked) or _nothing_there(model)
        raise _refusal(error)
    state.refusals.pop(model.name, None)
    state.loads.add(load)
    if looked.plan is not None:
        _carry_out(state, model, load, looked)


def answer_to(state: BrainState, event: ModelLoadAsked) -> str:
    """The worker that has the model or will: by its own load, or by what was there already."""
    if state.loads.get(event.load_id) or event.load_id in state.fleet.workers:
        return event.load_id
    return _there_already(state, state.catalog.get(event.model), event.places)


def refuse_if_hopeless(state: BrainState, model: Model, lane: Lane) -> None:
    """A task that can never run does not wait: there is nothing to run it on, or no device could hold the model."""
    _refuse_without_device(state)
    if not model.memory_is_known or not state.fleet.ready_nodes() or replicas.serving(state, lane):
        return
    if may_ever_fit(state, model, lane):
        return
    looked = outlook(state, model, lane)
    if looked.plan is None and not looked.waits and (error := _no_place(state, model, looked)):
        raise _refusal(error)


def describe_load(state: BrainState, name: str) -> str | None:
    """What a task that waits for this model waits for, for its reader."""
    load = min(state.loads.of_model(name), key=lambda load: load.since, default=None)
    return None if load is None else describe(state, load)


def describe(state: BrainState, load: Load) -> str:
    """What the load does now, for people."""
    name = load.model
    if load.plan is None:
        return f"waiting for a place where {name} fits"
    if load.phase is LoadPhase.STAGING:
        return f"looking for the file of {name} on {load.node_id}"
    if load.phase is LoadPhase.MAKING_ROOM:
        leaving = sorted(state.fleet.workers[worker_id].spec.model for worker_id in load.waits_for)
        return f"making room for {name} on {load.node_id}: {' and '.join(leaving)} leave{'s' * (len(leaving) == 1)}"
    return f"loading {name} on {_devices_of(state, load.plan)} of {load.node_id}{_less_context(state, load.plan, name)}"


def fits_nowhere(model: Model, looked: Outlook) -> str:
    return (
        f"model '{model.name}' needs about {looked.needed_mib} MiB with context {model.context} and {model.slots} "
        f"slots; the largest device holds {looked.decision.largest_mib} MiB when empty; lower its context or slots, "
        "take a smaller quantization, or a larger device"
    )


def staged(state: BrainState, event: ModelStaged) -> None:
    node = state.fleet.nodes.get(event.node_id)
    if node is not None:
        node.staged[event.source] = event.size_mib
    sources.learnt(state, event.source, size_mib=event.size_mib, facts=event.facts)
    _end_staging(state, event.node_id, event.source)


def staging_failed(state: BrainState, event: StagingFailed) -> None:
    for model in state.catalog.by_source(event.source):
        refuse_node(state, model.name, event.node_id, event.reason, event.message)
    _end_staging(state, event.node_id, event.source)


def start_accepted(state: BrainState, event: WorkerStartAccepted) -> None:
    if worker := state.fleet.workers.get(event.worker_id):
        worker.start_seq = event.command_seq if worker.start_seq is None else worker.start_seq


def give_up_loads(state: BrainState, node_id: str) -> None:
    """The node can't be reached: nobody waits for its loads. A worker that it brings all the same is used."""
    for load in state.loads.on_node(node_id):
        begin_anew(state, load)


def begin_anew(state: BrainState, load: Load) -> None:
    """What the load was about to do is moot. One that was asked for looks for another place, for others tasks do."""
    state.ledger.withdraw_promise(load.load_id)
    if load.asked and load.phase is not LoadPhase.STARTING:
        load.phase, load.plan = LoadPhase.WAITING, None
        load.waits_for.clear()
    else:
        state.loads.remove(load.load_id)
    state.look_again = True


def memory_came_back(state: BrainState, worker_id: str) -> None:
    """A worker has ended; loads that waited for its memory go on once nobody is left to wait for."""
    for load in state.loads.values():
        if worker_id in load.waits_for:
            load.waits_for.discard(worker_id)
            if not load.waits_for:
                _take_the_room(state, load)


def refuse_node(state: BrainState, name: str, node_id: str, reason: Reason, message: str, worker_id: str = "") -> None:
    """The node is out for this model until somebody asks again.

    One that is just ending is asked again by itself: when it is back, or if it reports all the same.
    """
    node = state.fleet.nodes.get(node_id)
    if node is not None and reason is Reason.DRAINING:
        suspect(state, node)
        return
    state.refusals.setdefault(name, {})[node_id] = TaskError(reason, message)
    before = state.load_failures.get(name)
    in_a_row = 1 if before is None else before.in_a_row + 1
    state.load_failures[name] = LoadFailure(name, node_id, reason, message, state.now, in_a_row, worker_id)
    state.timers.at(state.now + _retry_after_s(state, name), TimerKind.RETRY_LOAD, name)


def suspect(state: BrainState, node: Node) -> None:
    """Nothing new goes to the node until it reports again. Who waits is served elsewhere, or waits for its grace."""
    node.state = NodeState.SUSPECT
    state.timers.at(state.now + state.config.no_device_grace_s, TimerKind.NODE_GRACE, node.node_id)
    state.look_again = True


def retry(state: BrainState, name: str) -> None:
    """The wait after a failed load is over, for those who want the model kept; tasks have heard of it long ago."""
    if name in state.load_failures and _may_try(state, name):
        state.refusals.pop(name, None)
        state.look_again = True


def _there_already(state: BrainState, model: Model, places: tuple[Place, ...]) -> str:
    """The id of a worker at one of the places, there or on its way; empty if there is none."""

    def will_do(node_id: str, device_ids: tuple[str, ...]) -> bool:
        node = state.fleet.nodes.get(node_id)
        return not places or (node is not None and any(place.covers(node, device_ids) for place in places))

    for worker in state.fleet.workers_of_model(model.name):
        if worker.serves and state.fleet.node_is_ready(worker) and will_do(worker.node_id, worker.spec.device_ids):
            return worker.worker_id
    for load in state.loads.of_model(model.name):
        if load.places == places or (load.plan is not None and will_do(load.plan.node_id, load.plan.device_ids)):
            return load.load_id
    return ""


def _lanes(state: BrainState, model: Model) -> Iterator[Lane]:
    """Those who wait, and at last the model itself, for those who want it kept."""
    for lane in state.queue.lanes_of(model.name):
        yield lane if isinstance(lane, Lane) else Lane(model.name)
    if model.state is ModelState.ACTIVE and replicas.least(state, model.name):
        yield Lane(model.name)


def _begin(state: BrainState, model: Model, lane: Lane) -> bool:
    """Begin a load; False if there is no place for it now. Then those who wait go on waiting, or hear why not."""
    looked = _look(state, model, lane)
    if looked.plan is None:
        if looked.waits:
            yielding.make_way(state, lane, looked.decision)
        elif error := _why_nowhere(state, model, looked):
            decision_record.note(state, looked.decision, Outcome.REFUSED)
            _fail_waiting(state, lane, error)
        return False
    if looked.plan.evicts and not yielding.is_worth_evicting(state, lane, looked.plan.evicts):
        return False
    load = Load(state.new_id("worker"), model.name, model.spec.source, lane, state.now)
    state.loads.add(load)
    _carry_out(state, model, load, looked)
    return True


def _try_again(state: BrainState, load: Load) -> None:
    """A load that somebody asked for, and that had no place yet."""
    model = state.catalog.find(load.model)
    if model is None:
        state.loads.remove(load.load_id)
        return
    looked = _look(state, model, load.lane, load.places)
    if looked.plan is not None:
        load.source = model.spec.source
        _carry_out(state, model, load, looked)
    elif not looked.waits and _why_nowhere(state, model, looked):
        state.loads.remove(load.load_id)


def _look(state: BrainState, model: Model, lane: Lane, places: tuple[Place, ...] = ()) -> Outlook:
    return outlook(state, model, lane, frozenset(state.refusals.get(model.name, ())), places)


def _carry_out(state: BrainState, model: Model, load: Load, looked: Outlook) -> None:
    plan = looked.plan
    assert plan is not None  # or there is nothing to carry out
    load.plan, load.shape = plan, _shape(model)
    is_there = model.spec.source in state.fleet.nodes[plan.node_id].staged
    if model.size_mib is None or not is_there:  # staging what is there tells at once what it is
        load.phase = LoadPhase.STAGING
        state.emit(StageModel(plan.node_id, model.spec.source))
        _tell_waiting(state, model.name)
        return
    decision_record.note(state, looked.decision, Outcome.CHOSEN)
    if plan.evicts:
        load.phase = LoadPhase.MAKING_ROOM
        load.waits_for = set(plan.evicts)
        state.ledger.promise(load.load_id, plan.claims)
        for worker_id in plan.evicts:
            model_unloading.leave(state, state.fleet.workers[worker_id], Leaving.EVICTED)
    else:
        _start(state, model, load, plan)
    _tell_waiting(state, model.name)


def _take_the_room(state: BrainState, load: Load) -> None:
    """Everybody that the load waited for has left: it starts, unless the world has changed meanwhile."""
    model = state.catalog.find(load.model)
    plan = load.plan
    node = state.fleet.nodes.get(load.node_id)
    if (
        model is None
        or plan is None
        or (load.source, load.shape) != (model.spec.source, _shape(model))
        or not _is_usable(node, plan)
        or not state.ledger.fits(load.load_id, plan.claims)
    ):
        begin_anew(state, load)
        return
    _start(state, model, load, plan)
    _tell_waiting(state, model.name)


def _start(state: BrainState, model: Model, load: Load, plan: Plan) -> None:
    spec = WorkerSpec(
        worker_id=load.load_id,
        model=model.name,
        source=load.source,
        device_ids=plan.device_ids,
        slots=model.slots,
        context_per_slot=plan.context,
        cache_type_k=model.cache_type,
        cache_type_v=model.cache_type,
        reservation_mib=plan.claims_mib,
        tensor_split=plan.tensor_split,
    )
    state.ledger.reserve(load.load_id, plan.claims)
    state.fleet.add_worker(Worker(spec, plan.node_id, asked_at=state.now, asked=load.asked))
    load.phase = LoadPhase.STARTING
    state.emit(StartWorker(plan.node_id, spec))


def _shape(model: Model) -> tuple[object, ...]:
    """What the memory was counted for."""
    return model.slots, model.cache_type, model.context, model.vram_claim_mib


def _is_usable(node: Node | None, plan: Plan) -> bool:
    if node is None or node.state is not NodeState.READY:
        return False
    return all(device_id in node.devices and node.devices[device_id].usable for device_id in plan.device_ids)


def _end_staging(state: BrainState, node_id: str, source: str) -> None:
    """Found by the source: the model may have got another one since, and then needs another file."""
    for load in state.loads.on_node(node_id):
        if load.phase is LoadPhase.STAGING and load.source == source:
            begin_anew(state, load)


def _tell_waiting(state: BrainState, name: str) -> None:
    sentence = describe_load(state, name)
    if sentence is not None:
        state.emit(*(Narrate(task_id, sentence) for task_id in islice(state.queue.heads(name), _TOLD_AT_MOST)))


def _devices_of(state: BrainState, plan: Plan) -> str:
    devices = state.fleet.nodes[plan.node_id].devices
    return " + ".join(devices[device_id].name for device_id in plan.device_ids if device_id in devices)


def _less_context(state: BrainState, plan: Plan, name: str) -> str:
    model = state.catalog.find(name)
    if model is None or plan.context >= model.context:
        return ""
    return f" with context {plan.context}: {model.context} would fit on no device"


def _may_try(state: BrainState, name: str) -> bool:
    """Whoever has a task gets an answer now; who only wants the model kept waits longer after each failure."""
    if state.queue.has_waiting(name):
        return True
    failure = state.load_failures.get(name)
    return failure is None or state.now - failure.at >= _retry_after_s(state, name)


def _retry_after_s(state: BrainState, name: str) -> float:
    factor: int = 1 << min(state.load_failures[name].in_a_row - 1, 16)
    return min(state.config.load_retry_s * factor, state.config.load_retry_max_s)


def _fail_waiting(state: BrainState, lane: Lane, error: TaskError) -> None:
    """Everybody who waits in the lane hears why no worker comes."""
    for task_id in state.queue.waiting_for(lane.model):
        if state.queue[task_id].lane in (lane, None):
            task_life.finish(state, state.tasks[task_id], TaskState.FAILED, error)


def _why_nowhere(state: BrainState, model: Model, looked: Outlook) -> TaskError | None:
    """The error for those who wait, now that no place is left; None if a node or a device may still come."""
    if any(_may_come_back(state, node) for node in state.fleet.nodes.values()):
        return None
    if refused := state.refusals.get(model.name):
        return next(iter(refused.values()))
    return _no_place(state, model, looked)


def _no_place(state: BrainState, model: Model, looked: Outlook) -> TaskError | None:
    """None if nothing is known about how much it takes, or no device is there that could be asked."""
    if looked.decision.removed.get(NO_ROOM):
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, _no_room_beside_the_kept(model, looked))
    if model.memory_is_known and looked.decision.has_usable:
        return TaskError(Reason.MODEL_FITS_NO_DEVICE, fits_nowhere(model, looked))
    if any(drain.comes_back for drain in state.drains.all()):
        return None
    if looked.decision.excluded_by:
        return TaskError(Reason.PIN_EXCLUDES_ALL, no_place_left(model.name, looked.decision.excluded_by))
    removed = [words for name, words in _GIVEN_AWAY.items() if looked.decision.removed.get(name)]
    if removed:
        message = f"no device is left for '{model.name}': what could take it is {' or '.join(removed)}"
        return TaskError(Reason.NO_DEVICE, f"{message}; see `llorch gpus`", retryable=True)
    return None


def _no_room_beside_the_kept(model: Model, looked: Outlook) -> str:
    return (
        f"model '{model.name}' needs about {looked.needed_mib} MiB, and the models that are to stay loaded leave no "
        "room for it on any device; see `llorch assignments`"
    )


def _refusal(error: TaskError) -> LlorchError:
    """What may be there again soon is worth another try."""
    if error.reason is Reason.NO_DEVICE:
        return Unavailable(error.reason, error.message, retry_after_ms=1000)
    return FailedPrecondition(error.reason, error.message)


def _nothing_there(model: Model) -> TaskError:
    return TaskError(Reason.NO_DEVICE, f"no device that could take '{model.name}' answers now; see `llorch gpus`")


def _may_come_back(state: BrainState, node: Node) -> bool:
    is_lost = state.now - node.last_report_at >= state.config.no_device_grace_s
    return node.state is NodeState.SUSPECT and not is_lost


def _refuse_without_device(state: BrainState) -> None:
    if not state.fleet.nodes:
        raise Unavailable(
            Reason.NO_DEVICE,
            "no GPU host is connected; start pool-managerd there and point it at this orchestrator",
            retry_after_ms=1000,
        )
    if not any(device.usable for node in state.fleet.nodes.values() for device in node.devices.values()):
        raise Unavailable(
            Reason.NO_DEVICE,
            "no GPU host that is connected has a device that can be used; see `llorch gpus`",
            retry_after_ms=1000,
        )
