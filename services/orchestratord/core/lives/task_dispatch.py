"""Waiting tasks get free slots. A task is bound to a worker only when that worker has a free slot."""

from collections.abc import Hashable

from orchestratord.core.effects import (
    AnnouncePlacement,
    CancelRun,
    Narrate,
    PersistPromise,
    Placement,
    ReleaseRuns,
    StartRun,
)
from orchestratord.core.facts.attempt import Attempt, Loss
from orchestratord.core.facts.decision import Asked, Outcome
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.task import Task, TaskState
from orchestratord.core.lives import app_changes, decision_record, forgetting, learning, model_unloading
from orchestratord.core.placement import giving_way, prediction, promises, replicas, shares
from orchestratord.core.placement.lanes import lane_of_place
from orchestratord.core.placement.workers import place_task
from orchestratord.core.state import BrainState


def dispatch_model(state: BrainState, model: str) -> None:
    """Give the free slots of a model's workers to the tasks that wait, in the queue's order."""
    while found := _next_start(state, model):
        _start_attempt(state, *found)
    if state.queue.has_waiting(model):
        state.crowded[model] = None


def free_slot(state: BrainState, attempt: Attempt) -> None:
    """The attempt is over on its worker; the next task that waits for the model gets the slot."""
    attempt.ended = True
    state.attempts.pop(attempt.attempt_id, None)
    was_held = app_changes.attempt_ended(state, attempt)
    worker = state.fleet.workers.get(attempt.worker_id)
    if worker is None:
        return
    worker.attempts.discard(attempt.attempt_id)
    worker.last_used_at = state.now
    release_if_done(state, attempt)
    if attempt.gives_way is not None and (found := _next_start(state, worker.spec.model, attempt.gives_way)):
        _start_attempt(state, *found)
    dispatch_model(state, worker.spec.model)
    if was_held:
        _dispatch_app(state, attempt.place.app)
    if not worker.attempts:
        model_unloading.leave_if_due(state, worker)
    if not worker.attempts or worker.leaving is not None:  # what is left of it may give way now
        state.look_again = True


def _dispatch_app(state: BrainState, app: str) -> None:
    """The app is below its limit of tasks at once again, whichever model it waits for."""
    for model in state.queue.models_of_app(app):
        dispatch_model(state, model)


def release_if_done(state: BrainState, attempt: Attempt) -> None:
    """The worker may forget a run once it is over there and its task's terminal is visible here. One of a task that the
    store does not have stays until its readers have left, or do not come back: the next orchestrator would find its end
    nowhere else.
    """
    task = state.tasks.get(attempt.task_id)
    shown = task is None or task.attempt is not attempt or (task.terminal_shown and not task.may_be_read(state.now))
    if not attempt.ended or not shown:
        return
    if attempt.worker_id in state.fleet.workers:
        state.emit(ReleaseRuns(attempt.worker_id, (attempt.attempt_id,)))
    if task is not None and task.attempt is attempt:
        task.attempt = None


def cancel_attempt(state: BrainState, task: Task) -> None:
    """Tell the worker; the slot is free when the worker reports the end of the run."""
    if task.attempt is not None and not task.attempt.ended:
        state.emit(CancelRun(task.attempt.worker_id, task.attempt.attempt_id, keeps_output=True))


def supersede(state: BrainState, attempt: Attempt) -> None:
    """Nothing comes of it any more. Its slot is free when its worker reports its end; one that is out of reach is told
    when it is back.
    """
    if attempt.worker_id in state.fleet.workers:
        state.emit(CancelRun(attempt.worker_id, attempt.attempt_id))


def cancel_again(state: BrainState, worker: Worker) -> None:
    """Runs whose task is over, or goes on elsewhere: a cancel may have got lost while the worker was out of reach."""
    for attempt_id in sorted(worker.attempts):
        attempt = state.attempts[attempt_id]
        task = state.tasks.get(attempt.task_id)
        may_go_on = task is not None and (task.attempt is attempt or attempt_id in task.unread)
        if task is None or task.is_finished or not may_go_on:
            state.emit(CancelRun(worker.worker_id, attempt_id, keeps_output=True))


def _next_start(state: BrainState, model: str, only: tuple[str, Hashable] | None = None) -> tuple[Task, Worker] | None:
    """The first task in the queue's order for which a slot is free that it may use; `only` of a class and lane."""
    if not state.queue.has_waiting(model) or not any(w.takes_runs for w in state.fleet.workers_of_model(model)):
        return None
    for task_id in state.queue.heads(model):
        task, place = state.tasks[task_id], state.queue[task_id]
        if only is not None and only != (place.priority, lane_of_place(place)):
            continue
        if worker := _worker_for(state, task):
            return task, worker
        if task.suspicion.must_run_alone and replicas.workers_for(state, lane_of_place(state.queue[task.task_id])):
            return None  # it is next: a worker has to become empty for it
    return None


def _worker_for(state: BrainState, task: Task) -> Worker | None:
    decision = place_task(state, task.request, lane_of_place(state.queue[task.task_id]))
    if decision.chosen is None:
        return None
    decision_record.note(state, decision, Outcome.CHOSEN, task.task_id, asked=_asked(state, task))
    return state.fleet.workers[decision.chosen.worker_id]


def _asked(state: BrainState, task: Task) -> Asked:
    request = task.request
    return Asked(
        request.app,
        request.priority,
        round(state.ms_since_1970(task.created_at)),
        state.rates.prompt_tokens(request.model, request.prompt_tokens),
        request.choices * prediction.expected_output(state, request),
    )


def _start_attempt(state: BrainState, task: Task, worker: Worker) -> None:
    batch = len(worker.attempts) + 1
    expected = prediction.service_ms(state, task.request, worker, batch)
    share = shares.of_run(state, worker)
    charged_s = share * prediction.expected_s(state, task.request, expected)
    has_grant = giving_way.gets_grant(state, task)
    place = state.queue.take(task.task_id, charged_s)
    forgetting.wait_over(state, place)
    task.move_to(TaskState.RUNNING)
    task.end_wait()
    task.attempts += 1
    made_promise = _make_promise(state, task, worker)
    attempt = Attempt(
        attempt_id=state.new_id("attempt"),
        number=task.attempts,
        task_id=task.task_id,
        worker_id=worker.worker_id,
        place=place,
        charged=prediction.expected_tokens(state, task.request),
        share=share,
        charged_s=charged_s,
        began_at=state.now,
        batch=batch,
        session_id=task.request.session_id,
        made_promise=made_promise,
        resumes=worker.engine is not None and worker.engine.resumes,
        expected=expected,
        has_grant=has_grant,
    )
    learning.judge_start(state, task)
    app_changes.attempt_began(state, attempt)
    task.attempt = attempt
    task.note_start(state.now)
    state.attempts[attempt.attempt_id] = attempt
    worker.attempts.add(attempt.attempt_id)
    attempt.prompt = state.warmth.sent(task.task_id, worker.worker_id)
    worker.grant = max(0, worker.grant - 1)
    worker.last_used_at, worker.last_class = state.now, state.config.priorities.index(place.priority)
    placement = placement_of(state, worker, attempt.number, task.lost)
    task.lost = None
    state.emit(
        AnnouncePlacement(task.task_id, placement),
        Narrate(task.task_id, _describe(placement)),
        StartRun(
            worker.worker_id,
            attempt.attempt_id,
            task.request,
            _remaining_s(state, task),
            task.promise,
            attempt.number,
        ),
    )


def _make_promise(state: BrainState, task: Task, worker: Worker) -> bool:
    """From its first attempt on a deterministic task stays with one fingerprint. Whether this attempt is the first.

    The promise is made, and kept on the disk, at the start and not at the first token: after a crash it is not known
    what readers have seen.
    """
    if not task.request.deterministic or task.promise is not None:
        return False
    set_promise(state, task, promises.promise_of(state, worker))
    return True


def set_promise(state: BrainState, task: Task, promise: Promise | None) -> None:
    task.promise = promise
    if task.request.durable:
        state.emit(PersistPromise(task.task_id, promise))


def placement_of(state: BrainState, worker: Worker, attempt_number: int, lost: Loss | None = None) -> Placement:
    assert worker.engine is not None  # takes_runs needs a ready worker, and ready workers have told their engine
    devices = state.fleet.nodes[worker.node_id].devices
    return Placement(
        attempt=attempt_number,
        worker_id=worker.worker_id,
        node_id=worker.node_id,
        devices=tuple(devices[device_id] for device_id in worker.spec.device_ids if device_id in devices),
        engine=worker.engine,
        lost=lost,
    )


def _describe(placement: Placement) -> str:
    names = " + ".join(device.name for device in placement.devices)
    marks = [
        mark for mark, is_set in (("CPU", placement.engine.cpu), ("simulated", placement.engine.simulated)) if is_set
    ]
    suffix = f" ({', '.join(marks)})" if marks else ""
    return f"running on {names} of {placement.node_id}{suffix}"


def _remaining_s(state: BrainState, task: Task) -> float | None:
    return None if task.due_at is None else max(0.001, task.due_at - state.now)
