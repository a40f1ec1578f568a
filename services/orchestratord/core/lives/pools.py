"""Pools are drained, reloaded and purged: the nodes only start, stop and delete as the orchestrator commands.

A drain outlives the orchestrator: the next one goes on with it, and what was drained stays so.
"""

from dataclasses import replace
from functools import partial

from llorch.errors import Reason
from orchestratord.core.effects import DeleteStagedModel, ForgetAllSavedSessions, PersistRecord
from orchestratord.core.events import PoolDrainAsked, StagedModelDeleted
from orchestratord.core.facts.drains import AfterDrain, Drain, DrainPolicy, Ran
from orchestratord.core.facts.fleet import Leaving, Node, NodeState, Worker
from orchestratord.core.facts.loads import Load
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import attempt_loss, model_loading, model_unloading, task_life
from orchestratord.core.placement import continuation
from orchestratord.core.state import BrainState


def drain_asked(state: BrainState, event: PoolDrainAsked) -> None:
    """Nothing new is placed in the pool, its idle workers end now, busy ones with their tasks or at the deadline.

    Asked again, the later call counts; what ran there when the first drain began is not forgotten.
    """
    before = state.drains.find(event.pool_id)
    # The node's settings may not have the pool any more, whose devices stay drained until it is reloaded.
    is_orphaned = before is not None and event.after is AfterDrain.RELOAD
    pool = before if before is not None and is_orphaned else state.fleet.pool(event.pool_id)
    deadline_at = state.now + event.deadline_s
    workers = state.fleet.workers_using(pool.node_id, pool.device_ids)
    runs = (Ran(worker.spec.model, worker.spec.device_ids) for worker in workers if worker.serves)
    drain = Drain(
        pool_id=pool.pool_id,
        node_id=pool.node_id,
        device_ids=pool.device_ids,
        policy=event.policy,
        after=event.after,
        deadline_ms=round(state.ms_since_1970(deadline_at)),
        ran=(*(before.ran if before is not None else ()), *runs),
    )
    state.propose(partial(_begin, state, before, drain, deadline_at), RecordChange(before, drain))


def deadline_passed(state: BrainState, pool_id: str) -> None:
    drain = state.drains.find(pool_id)
    if drain is None or drain.is_drained or drain.policy is DrainPolicy.WAIT:
        return
    if state.now < state.drains.due_at(pool_id):
        return
    for worker in state.fleet.workers_using(drain.node_id, drain.device_ids):
        for attempt_id in sorted(worker.attempts):
            _end_attempt(state, drain, attempt_id)
        model_unloading.stop(state, worker, Leaving.DRAINED)


def worker_gone(state: BrainState, worker: Worker) -> None:
    for drain in state.drains.on_node(worker.node_id):
        if not drain.is_drained:
            _finish_if_empty(state, drain)


def workers_known(state: BrainState, node: Node) -> None:
    """The node has told all of its workers, or is lost with them: drains of before the start may be finished."""
    for drain in state.drains.on_node(node.node_id):
        if not drain.is_drained:
            _finish_if_empty(state, drain)


def follow_devices(state: BrainState, node: Node) -> None:
    """A drained pool stays so when a card is put in, or taken out of it: as a rule that is what it was drained for."""
    for drain in state.drains.on_node(node.node_id):
        pool = node.pools.get(drain.pool_id)
        if pool is not None and set(pool.device_ids) != set(drain.device_ids):
            present = replace(drain, device_ids=pool.device_ids)
            state.drains.put(present, state.drains.due_at(drain.pool_id))
            state.emit(PersistRecord(drain, present))


def show_out(state: BrainState, worker: Worker) -> None:
    """A worker was found in a drained pool: an earlier orchestrator process started it."""
    for drain in state.drains.on_node(worker.node_id):
        if not set(drain.device_ids).isdisjoint(worker.spec.device_ids):
            _send_away(state, drain, worker)


def renamed(state: BrainState, node: Node, former: str) -> None:
    """The host of the drained pools has another name now, and so have they: a pool's id begins with its node's."""
    for drain in state.drains.on_node(former):
        pool_id = node.node_id + drain.pool_id.removeprefix(former)
        moved = replace(drain, pool_id=pool_id, node_id=node.node_id)
        due = state.drains.due_at(drain.pool_id)
        take_out(state, drain)
        _put(state, moved, due)
        state.emit(PersistRecord(None, moved), PersistRecord(drain, None))


def restore(state: BrainState, record: Drain) -> None:
    _put(state, record, state.time_of(record.deadline_ms))


def take_out(state: BrainState, drain: Drain) -> None:
    """The pool is drained no more."""
    state.drains.discard(drain.pool_id)
    state.timers.cancel(drain.pool_id, TimerKind.DRAIN_DEADLINE)


def staged_model_deleted(state: BrainState, event: StagedModelDeleted) -> None:
    if node := state.fleet.nodes.get(event.node_id):
        node.staged.pop(event.source, None)


def _end_attempt(state: BrainState, drain: Drain, attempt_id: str) -> None:
    attempt = state.attempts[attempt_id]
    task = state.tasks.get(attempt.task_id)
    if task is None or task.is_finished or task.attempt is not attempt:
        return
    if drain.policy is not DrainPolicy.FAIL and continuation.can_go_on_elsewhere(state, task, attempt):
        attempt_loss.move(state, task, f"{drain.pool_id} was drained: going on elsewhere")
    else:
        message = f"pool '{drain.pool_id}' was drained before the task was finished; send the request again"
        task_life.finish(state, task, TaskState.FAILED, TaskError(Reason.DRAINING, message))


def _finish_if_empty(state: BrainState, drain: Drain) -> None:
    """As far as is known: a node that has not told its workers since the start may have some."""
    node = state.fleet.nodes.get(drain.node_id)
    if node is not None and node.state is NodeState.AWAITED:
        return
    if state.fleet.workers_using(drain.node_id, drain.device_ids):
        return
    state.look_again = True
    if drain.after is AfterDrain.RELOAD:
        take_out(state, drain)
        state.emit(PersistRecord(drain, None))
        for ran in drain.ran:
            _start_again(state, drain, ran.model, ran.device_ids)
        return
    state.timers.cancel(drain.pool_id, TimerKind.DRAIN_DEADLINE)
    drained = replace(drain, is_drained=True)
    state.drains.put(drained, state.drains.due_at(drain.pool_id))
    state.emit(PersistRecord(drain, drained))
    if drain.after is AfterDrain.PURGE:
        _purge(state, drain)


def _begin(state: BrainState, before: Drain | None, drain: Drain, deadline_at: float) -> None:
    """The pool may have become empty meanwhile; what that wrote came after the change, so it is written once more."""
    present = state.drains.find(drain.pool_id)
    if present != before:
        state.emit(PersistRecord(present, drain))
    _put(state, drain, deadline_at)
    devices = set(drain.device_ids)
    for load in state.loads.on_node(drain.node_id):
        if load.load_id not in state.fleet.workers and load.plan and not devices.isdisjoint(load.plan.device_ids):
            model_loading.begin_anew(state, load)
    for worker in state.fleet.workers_using(drain.node_id, drain.device_ids):
        _send_away(state, drain, worker)
    _finish_if_empty(state, drain)


def _put(state: BrainState, drain: Drain, due: float) -> None:
    state.drains.put(drain, due)
    if not drain.is_drained:
        state.timers.at(due, TimerKind.DRAIN_DEADLINE, drain.pool_id)


def _send_away(state: BrainState, drain: Drain, worker: Worker) -> None:
    task_life.tell_running(
        state, worker, f"{drain.pool_id} is being drained: this task finishes here, or goes on elsewhere"
    )
    model_unloading.leave(state, worker, Leaving.DRAINED)


def _start_again(state: BrainState, drain: Drain, name: str, device_ids: tuple[str, ...]) -> None:
    model = state.catalog.find(name)
    if model is None:
        return
    load = Load(state.new_id("worker"), model.name, model.spec.source, Lane(model.name), state.now, asked=True)
    load.places = (Place(drain.node_id, device_ids),)
    state.loads.add(load)


def _purge(state: BrainState, drain: Drain) -> None:
    node = state.fleet.nodes.get(drain.node_id)
    if node is None:
        return
    _delete_models(state, node)
    # It may have saved something that it has not told yet.
    if node.saved_sessions.sequences or node.saved_sessions.budget_mib:
        state.emit(ForgetAllSavedSessions(node.node_id))


def _delete_models(state: BrainState, node: Node) -> None:
    """Files that workers and loads elsewhere on the node need stay."""
    needed = {worker.spec.source for worker in state.fleet.workers_on(node.node_id)}
    needed |= {load.source for load in state.loads.on_node(node.node_id)}
    for source in sorted(set(node.staged) - needed):
        state.emit(DeleteStagedModel(node.node_id, source))
