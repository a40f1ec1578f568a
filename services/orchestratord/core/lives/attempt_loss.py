"""Attempts are lost, or out of reach; their tasks go on elsewhere from where their output ends, where they can."""

from llorch.errors import Reason
from orchestratord.core.effects import AnnouncePlacement, AttemptLost, Narrate, WatchOutput
from orchestratord.core.events import AttemptDecided, OutputWentOn
from orchestratord.core.facts import suspicion
from orchestratord.core.facts.attempt import Attempt, Loss
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.task import Task, TaskError, TaskState
from orchestratord.core.lives import app_changes, task_dispatch, task_life, task_requeue, token_usage
from orchestratord.core.placement import continuation
from orchestratord.core.state import BrainState

MOST_FRUITLESS = 3
"""Attempts in a row that workers which go on gave up, or did not know, before they brought output."""

MOST_UNREAD = 2
"""Attempts of one task that are out of reach and may still go on."""


def worker_ended(state: BrainState, worker: Worker, what_happened: str) -> None:
    """By itself, or because it was stuck: one of the tasks aboard may be the reason."""
    attempts = [state.attempts[attempt_id] for attempt_id in sorted(worker.attempts)]
    found = ((attempt, state.tasks.get(attempt.task_id)) for attempt in attempts)
    aboard = {task.task_id: task for attempt, task in found if task is not None and _is_aboard(task, attempt)}
    suspicions = {task_id: task.suspicion for task_id, task in aboard.items()}
    verdict = suspicion.worker_ended(suspicions, others=len(attempts) - len(aboard))
    for task in aboard.values():
        state.emit(WatchOutput(task.task_id, suspicion.PAST_AFTER_ENTRIES * task.request.choices))
        if task.suspicion.is_hot:
            state.suspects.add(task.task_id)
            task_requeue.change_lane(state, task)
    for attempt in attempts:
        if verdict.is_proven and attempt.task_id == verdict.culprit and not aboard[attempt.task_id].is_finished:
            _quarantine(state, aboard[attempt.task_id], worker.worker_id, what_happened)
        is_other = verdict.culprit not in ("", attempt.task_id)
        lose(state, attempt, Loss.POISON if is_other else Loss.EXIT, what_happened)


def _is_aboard(task: Task, attempt: Attempt) -> bool:
    """Neither is the task over, nor has another attempt brought its next output since, or begun."""
    if task.is_finished:
        return False
    has_just_given_way = attempt.gives_way is not None and task.attempt is None
    return task.attempt is attempt or attempt.attempt_id in task.unread or has_just_given_way


def worker_gone(state: BrainState, worker: Worker, loss: Loss, what_happened: str) -> None:
    """No task that ran there is the reason."""
    for attempt_id in sorted(worker.attempts):
        lose(state, state.attempts[attempt_id], loss, what_happened)


def worker_out_of_reach(state: BrainState, worker: Worker) -> None:
    """Attaching again has taken too long. What runs there may still come back first: until another attempt has brought
    output, either may go on.
    """
    for attempt_id in sorted(worker.attempts):
        attempt = state.attempts[attempt_id]
        task = state.tasks.get(attempt.task_id)
        if task is None or task.is_finished:
            app_changes.set_aside(state, attempt)
            state.look_again = True
        if task is None or task.attempt is not attempt:
            continue
        if task.stopping is not None:
            task_life.end_stop(state, task)
        elif not task.is_finished and continuation.can_go_on_elsewhere(state, task, attempt):
            _note(state, task, Loss.LEASE)
            app_changes.set_aside(state, attempt)
            if not _goes_on_instead(state, task):
                task_requeue.requeue(state, task, "the worker that runs the task does not answer; going on elsewhere")
            task.unread[attempt_id] = attempt
            while len(task.unread) > MOST_UNREAD:
                task_dispatch.supersede(state, task.unread.pop(next(iter(task.unread))))


def worker_is_back(state: BrainState, worker: Worker) -> None:
    """What runs there goes on, unless another attempt has begun meanwhile: then the first to bring output does."""
    for attempt_id in sorted(worker.attempts):
        attempt = state.attempts[attempt_id]
        task = state.tasks.get(attempt.task_id)
        if task is not None and attempt_id in task.unread and task.state is TaskState.QUEUED:
            _goes_on(state, task, attempt)


def decided(state: BrainState, event: AttemptDecided) -> None:
    """Of several attempts of a task that might, this one has brought the next output."""
    attempt = state.attempts.get(event.attempt_id)
    task = state.tasks.get(attempt.task_id) if attempt is not None else None
    if attempt is not None and task is not None and not task.is_finished:
        decide(state, task, attempt)


def decide(state: BrainState, task: Task, attempt: Attempt) -> None:
    """All others of the task's attempts end; nothing that they bring is shown."""
    if attempt.attempt_id in task.unread:
        other = task.attempt
        _goes_on(state, task, attempt)
        if other is not None:
            app_changes.set_aside(state, other)
            task_dispatch.supersede(state, other)
    for other in task.unread.values():
        task_dispatch.supersede(state, other)
    task.unread.clear()


def lose(state: BrainState, attempt: Attempt, loss: Loss, what_happened: str) -> None:
    """For good: nothing comes of it any more."""
    task = state.tasks.get(attempt.task_id)
    token_usage.attempt_lost(state, attempt)
    if task is not None and task.attempt is attempt:
        if task.stopping is not None:
            task_life.end_stop(state, task)
        elif not task.is_finished:
            go_on_elsewhere(state, task, attempt, loss, what_happened)
    elif task is not None:
        task.unread.pop(attempt.attempt_id, None)
    task_dispatch.free_slot(state, attempt)


def go_on_elsewhere(state: BrainState, task: Task, attempt: Attempt, loss: Loss, what_happened: str) -> None:
    """The present attempt is lost: another one takes over, or the task fails."""
    _note(state, task, loss)
    if attempt.has_output:
        task.fruitless = 0
    elif loss is Loss.UNKNOWN:
        task.fruitless += 1
    if _goes_on_instead(state, task):
        return
    if task.fruitless >= MOST_FRUITLESS or not continuation.can_go_on_elsewhere(state, task, attempt):
        task_life.finish(state, task, TaskState.FAILED, _lost(what_happened))
        return
    task_requeue.drop_promise_of_nothing(state, task, attempt)
    task_requeue.requeue(state, task, f"{what_happened}; going on elsewhere")


def failed_alone(state: BrainState, task: Task) -> bool:
    """The present attempt has failed. Where another one is back, that goes on, and the failure is not the task's."""
    if _back(state, task) is None:
        return False
    _note(state, task, Loss.UNKNOWN)
    return _goes_on_instead(state, task)


def move(state: BrainState, task: Task, because: str) -> None:
    """On purpose: what the present attempt still brings is dropped, and its slot is free when its worker reports the
    end of the run.
    """
    attempt = task.attempt
    assert attempt is not None  # or it runs nowhere
    app_changes.set_aside(state, attempt)
    if not _goes_on_instead(state, task):
        task_requeue.drop_promise_of_nothing(state, task, attempt)
        task_requeue.requeue(state, task, because)
    task_dispatch.supersede(state, attempt)


def output_went_on(state: BrainState, event: OutputWentOn) -> None:
    """A task is past the point at which its worker ended: it was not the reason."""
    task = state.tasks.get(event.task_id)
    if task is None or task.is_finished:
        return
    task.suspicion.is_past()
    if task.task_id in state.suspects:
        state.suspects.discard(task.task_id)
        task_dispatch.dispatch_model(state, task.request.model)


def _goes_on_instead(state: BrainState, task: Task) -> bool:
    """In place of the present attempt, at one that was out of reach and is back, if there is one."""
    if (attempt := _back(state, task)) is None:
        return False
    _goes_on(state, task, attempt)
    return True


def _back(state: BrainState, task: Task) -> Attempt | None:
    """An attempt that was out of reach, and whose worker answers again."""
    for attempt in task.unread.values():
        worker = state.fleet.workers.get(attempt.worker_id)
        if worker is not None and worker.attached:
            return attempt
    return None


def _goes_on(state: BrainState, task: Task, attempt: Attempt) -> None:
    del task.unread[attempt.attempt_id]
    app_changes.count_again(state, attempt)
    if task.state is TaskState.QUEUED:
        task_requeue.take_back(state, task, attempt)
    task.attempt, task.lost = attempt, None
    task.tokens_in, task.cached_tokens = attempt.tokens_in, attempt.cached_tokens
    task.note_start(attempt.began_at)
    worker = state.fleet.workers[attempt.worker_id]
    state.emit(
        AnnouncePlacement(task.task_id, task_dispatch.placement_of(state, worker, attempt.number)),
        Narrate(task.task_id, "the worker that ran the task answers again; going on there"),
    )


def _quarantine(state: BrainState, task: Task, worker_id: str, what_happened: str) -> None:
    _note(state, task, Loss.EXIT)
    message = (
        f"{what_happened}; {task.suspicion.ended} workers ended under this task, the last with nothing else on it, so "
        "it is not tried again; unless they were killed from outside, or for want of memory, the prompt or the model "
        f"is the cause; `llorch logs {worker_id}` has the last one's log"
    )
    task_life.finish(state, task, TaskState.FAILED, TaskError(Reason.QUARANTINED, message))
    if task.attempt is not None and task.attempt.worker_id in state.fleet.workers:
        task_dispatch.cancel_attempt(state, task)  # it has gone on elsewhere meanwhile


def _note(state: BrainState, task: Task, loss: Loss) -> None:
    task.note_loss(loss)
    state.emit(AttemptLost(task.task_id, task.request.model, loss))


def _lost(what_happened: str) -> TaskError:
    return TaskError(Reason.WORKER_LOST, f"{what_happened}; send the request again")
