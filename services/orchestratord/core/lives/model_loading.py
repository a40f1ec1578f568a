"""Loads of models: find a place, stage the file, make room, start a worker."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from llorch.errors import Reason, ResourceExhausted
from llorch.options.model import LoadOptions
from llorch.options.option import values_of
from orchestratord.core.effects import Narrate, StageModel, StartWorker
from orchestratord.core.events import ModelLoadAsked, ModelStaged, StagingFailed, WorkerStartAccepted
from orchestratord.core.facts.decision import Outcome
from orchestratord.core.facts.fleet import Leaving, Node, NodeState, Worker
from orchestratord.core.facts.loads import Load, LoadFailure, LoadPhase, Plan
from orchestratord.core.facts.model import Model, ModelState
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import Task, TaskError, TaskState, failure_on
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.facts.work import refusal_of
from orchestratord.core.lives import (
    decision_record,
    file_looks,
    giving_way,
    model_unloading,
    sources,
    task_dispatch,
    task_life,
)
from orchestratord.core.placement import allowances, availability, eviction, replicas, shares, turns
from orchestratord.core.placement.availability import Wait
from orchestratord.core.placement.cost import load_term
from orchestratord.core.placement.lanes import lane_of_place
from orchestratord.core.placement.load_planning import Outlook, outlook
from orchestratord.core.placement.load_progress import describe_load
from orchestratord.core.placement.worker_specs import what_to_load
from orchestratord.core.state import BrainState

MOST_LOADS = 1024
"""From this many on, callers are asked to wait with further ones. Tasks may still have models loaded."""
_LOADS_RETRY_MS = 10_000

LOOKS_AT_ONCE, DEVICES_AT_ONCE = 16, 1600
"""Models for which a place is looked for after one event; fewer, where that would be a look at more devices than so
many, all together: the brain hears nothing meanwhile.
"""

FAILURE_SHOWN_S = 600.0
"""How long a failed load is shown: as long as finished tasks are by default, longer than it takes to try again."""

_OF_OTHER_CALLS = frozenset({Reason.INVALID_FIELD, Reason.UNKNOWN_FIELD, Reason.MALFORMED_REQUEST})
"""They say of the command to the node that it was wrong. To those that wait for the model they would say that of their
own request.
"""

_TOLD_AT_MOST = 32
"""Readers of this many tasks are told what they wait for; those of tasks further back when their turn is near."""


def ensure_loaded(state: BrainState, name: str) -> None:
    """Take the next step towards a worker, for tasks that wait for the model and for rules that keep it loaded."""
    model = state.catalog.find(name)
    if model is None:
        return
    for lane, for_tasks in _lanes(state, model).items():
        while replicas.wants_another(state, lane) and availability.may_try(state, model.name):
            if not _begin(state, model, lane, for_tasks=for_tasks):
                break
        else:
            _place_is_there(state, lane)


def look_again(state: BrainState) -> None:
    """Something became free or came: serve the tasks and loads that wait for a model, the longest waiting first.

    A search without result costs time for every model that waits for a place, so where very many do, the rest has to
    wait for the next event or tick. The model that was looked at last comes last then.
    """
    state.look_again = False
    for load in state.loads.values():
        if load.phase is LoadPhase.WAITING:
            _try_again(state, load)
        elif load.phase is LoadPhase.MAKING_ROOM and not load.asked:
            _look_whether_needed(state, load)
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
    if not state.to_look_at:
        return
    devices = sum(len(node.devices) for node in state.fleet.nodes.values())
    looks = max(1, min(LOOKS_AT_ONCE, DEVICES_AT_ONCE // max(1, devices)))
    for name in list(islice(state.to_look_at, looks)):
        del state.to_look_at[name]
        ensure_loaded(state, name)


def load_asked(state: BrainState, event: ModelLoadAsked) -> str:
    """Load the model whether tasks wait or not. One that is there or on its way will do, unless another is wanted.

    Refused if it could not be loaded even if all workers left; otherwise it waits for its turn.
    """
    model = state.catalog.get_active(event.model)
    if not event.anew and (there := availability.there_already(state, model, event.places)):
        return there
    availability.refuse_without_device(state)
    load = Load(event.load_id, model.name, model.spec.source, Lane(model.name), state.now, asked=True)
    load.places = event.places
    looked = outlook(state, model, load.lane, places=event.places, for_tasks=False)
    availability.refuse_if_nowhere(state, model, load.lane, looked, event.places)
    _refuse_too_many(state)
    state.refusals.pop(model.name, None)
    state.loads.add(load)
    if looked.plan is not None:
        _carry_out(state, model, load, looked)
    return load.load_id


def _refuse_too_many(state: BrainState) -> None:
    if len(state.loads) >= MOST_LOADS:
        raise ResourceExhausted(
            Reason.TOO_MANY_CALLS,
            f"{len(state.loads)} loads are under way or wait for a place already; `llorch ps` lists them; wait for "
            "some of them, or unload models",
            retry_after_ms=_LOADS_RETRY_MS,
        )


def staged(state: BrainState, event: ModelStaged) -> None:
    node = state.fleet.nodes.get(event.node_id)
    if node is not None:
        node.staged[event.source] = event.size_mib
    sources.learnt(state, event.source, size_mib=event.size_mib, facts=event.facts)
    for model in state.catalog.by_source(event.source):
        _fail_other_work(state, model)
    _end_staging(state, event.node_id, event.source)
    file_looks.looked(state, event.node_id, event.source)


def staging_failed(state: BrainState, event: StagingFailed) -> None:
    for model in () if file_looks.failed(state, event) else state.catalog.by_source(event.source):
        refuse_node(state, model.name, event.node_id, event.reason, event.message)
    _end_staging(state, event.node_id, event.source)
    file_looks.looked(state, event.node_id, event.source)


def start_accepted(state: BrainState, event: WorkerStartAccepted) -> None:
    """Where its pool manager was started again since, the next full report says whether the present one knows of it."""
    if worker := state.fleet.workers.get(event.worker_id):
        node = state.fleet.nodes.get(worker.node_id)
        by_present = node is None or node.instance_id == worker.asked_of
        seq = event.command_seq if by_present else 0
        worker.start_seq = seq if worker.start_seq is None else worker.start_seq


def give_up_loads(state: BrainState, node_id: str) -> None:
    """The node can't be reached: tasks stop waiting for its loads. A worker that it starts all the same is used."""
    for load in state.loads.on_node(node_id):
        begin_anew(state, load)


def begin_anew(state: BrainState, load: Load) -> None:
    """The load can't go on as planned. One that was asked for looks for another place; for others, their tasks do."""
    if load.asked and load.phase is not LoadPhase.STARTING:
        load.phase, load.plan = LoadPhase.WAITING, None
    else:
        state.loads.remove(load.load_id)
    model_unloading.let_stay(state, load)
    state.look_again = True


def memory_came_back(state: BrainState, worker_id: str) -> None:
    """A worker has ended; loads that waited for its memory go on once there is enough, those first that came first."""
    for load in state.loads.values():
        if worker_id in load.waits_for:
            load.waits_for.discard(worker_id)
            if not load.waits_for or _has_its_room(state, load):
                _take_the_room(state, load)


def _has_its_room(state: BrainState, load: Load) -> bool:
    """Though others that are to leave are there yet. Those that leave for it alone have left."""
    assert load.plan is not None  # or it waits for no worker
    return load.waits_for.isdisjoint(load.plan.evicts) and state.ledger.fits(load.load_id, load.plan.claims)


def refuse_node(state: BrainState, name: str, node_id: str, reason: Reason, message: str, worker_id: str = "") -> None:
    """No load of this model goes to the node until the model is asked for again.

    A node that is just restarting is asked again by itself: when it is back, or if it reports all the same.
    """
    node = state.fleet.nodes.get(node_id)
    if node is not None and reason is Reason.DRAINING:
        suspect(state, node)
        return
    if not state.catalog.has(name):
        return
    if reason in _OF_OTHER_CALLS:
        reason = Reason.MODEL_LOAD_FAILED
    state.refusals.setdefault(name, {})[node_id] = failure_on(node_id, reason, message)
    before = state.load_failures.get(name)
    in_a_row = 1 if before is None else before.in_a_row + 1
    state.load_failures[name] = LoadFailure(name, node_id, reason, message, state.now, in_a_row, worker_id)
    state.timers.at(state.now + availability.retry_after_s(state, name), TimerKind.RETRY_LOAD, name)
    state.timers.at(state.now + FAILURE_SHOWN_S, TimerKind.FORGET_FAILURE, name)


def forget_failure(state: BrainState, name: str) -> None:
    """The last one was long ago: nothing has tried to load the model since, and what is to stay loaded is tried more
    often.
    """
    failure = state.load_failures.get(name)
    if failure is not None and state.now - failure.at >= FAILURE_SHOWN_S:
        del state.load_failures[name]


def suspect(state: BrainState, node: Node) -> None:
    """Nothing new goes to the node until it reports again. Waiting tasks are served elsewhere, or wait for it."""
    node.state = NodeState.SUSPECT
    state.timers.at(node.last_report_at + state.config.no_device_grace_s, TimerKind.NODE_GRACE, node.node_id)
    state.look_again = True


def tell_wait(state: BrainState, task: Task, wait: Wait) -> None:
    """Once, as long as nothing else is away."""
    _note_placeless(state, task)
    if task.waits_for != wait.things:
        task.waits_for = wait.things
        state.emit(Narrate(task.task_id, f"waiting for {availability.told_to(state, wait, task)}"))


def retry(state: BrainState, name: str) -> None:
    """The wait after a failed load is over, for rules that keep the model loaded and for tasks that have been running;
    all others got the error long ago.
    """
    if name in state.load_failures and availability.may_try(state, name):
        state.refusals.pop(name, None)
        state.look_again = True


def _lanes(state: BrainState, model: Model) -> dict[Lane, bool]:
    """The lanes of waiting tasks that may start, and the model's own for rules that keep it loaded; and whether they
    are lanes of tasks.
    """
    waiting = state.queue.lanes_of(model.name, allowances.may_start(state, model.name))
    lanes = {lane if isinstance(lane, Lane) else Lane(model.name): True for lane in waiting}
    if model.state is ModelState.ACTIVE and replicas.least(state, model.name):
        lanes.setdefault(Lane(model.name), False)
    return lanes


def _begin(state: BrainState, model: Model, lane: Lane, *, for_tasks: bool) -> bool:
    """Begin a load; False if there is no place for it now. Then its tasks go on waiting, or fail with the reason."""
    looked = _look(state, model, lane, for_tasks=for_tasks)
    rival = turns.rival_of(state, lane) if for_tasks else None
    if looked.waits and rival is not None and not replicas.are_coming(state, lane):
        looked = turns.reserve(state, rival, looked)
    if looked.plan is None:
        if looked.waits:
            _place_is_there(state, lane)
            if rival is not None:
                state.look_by(state.now + turns.LOOK_EVERY_S)
            return False
        stands = availability.standing(state, model, lane, looked)
        if stands.error is None:
            _tell_wait(state, lane, stands.wait)
        else:
            _refuse_waiting(state, lane, looked, stands.error, stands.wait)
        return False
    if wait := availability.may_be_there(state, model, lane):
        state.look_by(state.settles_at)
        _tell_wait(state, lane, wait)
        return False
    _place_is_there(state, lane)
    load = Load(state.new_id("worker"), model.name, model.spec.source, lane, state.now)
    load.payer = None if rival is None else rival.app
    state.loads.add(load)
    _carry_out(state, model, load, looked)
    return True


def _try_again(state: BrainState, load: Load) -> None:
    """A load that was asked for, and that had no place yet."""
    model = state.catalog.find(load.model)
    if model is None:
        state.loads.remove(load.load_id)
        return
    looked = _look(state, model, load.lane, load.places, for_tasks=False)
    if looked.plan is not None:
        load.source = model.spec.source
        _carry_out(state, model, load, looked)
    elif not looked.waits and availability.standing(state, model, load.lane, looked, load.places).error:
        state.loads.remove(load.load_id)


def _look_whether_needed(state: BrainState, load: Load) -> None:
    """A load that waits until workers have left: it ends with the last task that may start there, and where another
    place is free meanwhile.
    """
    model = state.catalog.find(load.model)
    lanes = {} if model is None else _lanes(state, model)
    if model is None or load.lane not in lanes:
        model_unloading.end_load(state, load)
    elif any(worker.attempts for worker_id in load.waits_for if (worker := state.fleet.workers.get(worker_id))):
        looked = _look(state, model, load.lane, for_tasks=lanes[load.lane])
        if looked.plan is not None and state.ledger.fits("", looked.plan.claims):
            model_unloading.end_load(state, load)
        else:
            giving_way.empty_workers(state, load)


def _look(state: BrainState, model: Model, lane: Lane, places: tuple[Place, ...] = (), *, for_tasks: bool) -> Outlook:
    refusals = frozenset(state.refusals.get(model.name, ()))
    return outlook(state, model, lane, refusals, places, for_tasks=for_tasks)


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
    state.ledger.promise(load.load_id, plan.claims)
    if not plan.evicts and state.ledger.fits(load.load_id, plan.claims):
        _start(state, model, load, plan)
    else:
        _make_room(state, load, plan)
    _tell_waiting(state, model.name)


def _make_room(state: BrainState, load: Load, plan: Plan) -> None:
    """The load has its place from now on, though workers hold memory there that are still to leave."""
    load.phase = LoadPhase.MAKING_ROOM
    load.waits_for = eviction.leaving(state, plan.claims).union(plan.evicts)
    for worker_id in plan.evicts:
        model_unloading.leave(state, state.fleet.workers[worker_id], Leaving.EVICTED)
    giving_way.empty_workers(state, load)


def _take_the_room(state: BrainState, load: Load) -> None:
    """All workers that the load waited for have left: it starts, unless the state has changed meanwhile."""
    model = state.catalog.find(load.model)
    plan = load.plan
    node = state.fleet.nodes.get(load.node_id)
    if (
        model is None
        or plan is None
        or (load.source, load.shape) != (model.spec.source, _shape(model))
        or not availability.is_usable(node, plan)
        or not state.ledger.fits(load.load_id, plan.claims)
    ):
        begin_anew(state, load)
        return
    _start(state, model, load, plan)
    _tell_waiting(state, model.name)


def _start(state: BrainState, model: Model, load: Load, plan: Plan) -> None:
    node = state.fleet.nodes[plan.node_id]
    spec = replace(
        what_to_load(model, [node.devices[it] for it in plan.device_ids], plan.context),
        worker_id=load.load_id,
        source=load.source,
        slots=model.slots,
        reservation_mib=plan.claims_mib,
        tensor_split=plan.tensor_split,
    )
    model_unloading.wait_no_more(state, load)
    if load.payer is not None:
        load.share = shares.of_claims(state, plan.claims)
        load.charged_s = load.share * load_term(state, model.name, plan.node_id).ms / 1000
        state.queue.accounts.charge(load.payer, load.charged_s)
    state.ledger.reserve(load.load_id, plan.claims)
    state.fleet.add_worker(Worker(spec, plan.node_id, asked_at=state.now, asked=load.asked, asked_of=node.instance_id))
    load.phase = LoadPhase.STARTING
    state.emit(StartWorker(plan.node_id, spec))


def _shape(model: Model) -> tuple[object, ...]:
    """What the memory was estimated for."""
    return model.slots, model.cache_type, model.context, model.vram_claim_mib, values_of(LoadOptions, model.spec)


def _end_staging(state: BrainState, node_id: str, source: str) -> None:
    """Found by the source: the model may have another source by now, and then needs another file."""
    for load in state.loads.on_node(node_id):
        if load.phase is LoadPhase.STAGING and load.source == source:
            begin_anew(state, load)


def _tell_waiting(state: BrainState, name: str) -> None:
    sentence = describe_load(state, name)
    if sentence is not None:
        state.emit(*(Narrate(task_id, sentence) for task_id in islice(state.queue.heads(name), _TOLD_AT_MOST)))


def _tell_wait(state: BrainState, lane: Lane, wait: Wait | None) -> None:
    """All tasks of the lane, which may be many: only when something else is away than before."""
    if wait is not None and _is_news(state, lane, wait.things):
        for task in _waiting_in(state, lane):
            tell_wait(state, task, wait)


def _note_placeless(state: BrainState, task: Task) -> None:
    """Since now, unless it is already. With a note of the lane: what has none costs nothing when a place is there."""
    if task.placeless_since is None:
        task.placeless_since = state.now
        state.waits_told.setdefault(lane_of_place(state.queue[task.task_id]), ())


def _place_is_there(state: BrainState, lane: Lane) -> None:
    """Its tasks have only to wait for their turn: what was away does not count if something is away later on."""
    if state.waits_told.pop(lane, None) is not None:
        for task in _waiting_in(state, lane):
            task.end_wait()


def _is_news(state: BrainState, lane: Lane, told: tuple[str, ...]) -> bool:
    """Whether the lane heard something else last."""
    if state.waits_told.get(lane) == told:
        return False
    for known in [known for known in state.waits_told if not state.queue.has_waiting(known.model)]:
        del state.waits_told[known]
    state.waits_told[lane] = told
    return True


def _waiting_in(state: BrainState, lane: Lane) -> Iterator[Task]:
    for task_id in state.queue.waiting_for(lane.model):
        if lane_of_place(state.queue[task_id]) == lane:
            yield state.tasks[task_id]


def _fail_other_work(state: BrainState, model: Model) -> None:
    """Its file is known now, and no worker is started yet: what it was not trained for ends before one is."""
    for task_id in state.queue.waiting_for(model.name):
        task = state.tasks[task_id]
        if message := refusal_of(model.name, model.facts, task.request.work):
            error = TaskError(Reason.UNSUPPORTED_OPTION, message, field=str(task.request.work))
            task_life.finish(state, task, TaskState.FAILED, error)


def _refuse_waiting(state: BrainState, lane: Lane, looked: Outlook, error: TaskError, wait: Wait | None) -> None:
    """The tasks of the lane fail with the reason why no worker comes."""
    failed = refuse(state, list(_waiting_in(state, lane)), error, wait)
    for task in failed[:_TOLD_AT_MOST]:
        decision_record.note(state, looked.decision, Outcome.REFUSED, task.task_id, error.message)
    if not failed and wait is not None and _is_news(state, lane, wait.things):
        decision_record.note(state, looked.decision, Outcome.REFUSED, why=error.message)


def refuse(state: BrainState, tasks: Sequence[Task], error: TaskError, wait: Wait | None) -> list[Task]:
    """Of those that were accepted for good, or have been running, such as have waited for long enough. Returns who has
    failed.
    """
    failed = []
    for task in tasks:
        until = availability.waits_until(state, task, wait)
        if state.now < until:
            _note_placeless(state, task)
            state.look_by(until)
            if told := wait or availability.wait_for_load(state, task):
                tell_wait(state, task, told)
        else:
            failed.append(task)
            task_life.finish(state, task, TaskState.FAILED, error)
    return failed
