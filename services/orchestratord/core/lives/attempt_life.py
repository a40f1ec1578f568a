"""Attempts begin, bring output, and end or are lost; what that means for their tasks."""

from llorch.finish_reason import FinishReason
from orchestratord.core.events import AttemptEnded, AttemptFirstToken, AttemptStarted, AttemptUnknown
from orchestratord.core.facts.attempt import NOT_NOW, Attempt, Loss
from orchestratord.core.facts.task import RunResult, Task, TaskError, TaskState
from orchestratord.core.lives import attempt_loss, learning, task_dispatch, task_life, token_usage
from orchestratord.core.state import BrainState


def started(state: BrainState, event: AttemptStarted) -> None:
    """A worker reports the start again when its link attaches again; the first report counts."""
    attempt = state.attempts.get(event.attempt_id)
    if attempt is not None and not attempt.started:
        attempt.started = True
        attempt.tokens_in, attempt.cached_tokens = event.tokens_in, event.cached_tokens
        task = _task_of(state, event.attempt_id)
        if task is not None and task.attempt is attempt:
            task.note_start(state.now)
            task.tokens_in, task.cached_tokens = event.tokens_in, event.cached_tokens


def first_token(state: BrainState, event: AttemptFirstToken) -> None:
    """Of an attempt whose place another one took, or is to take, nothing comes into the log."""
    attempt = state.attempts.get(event.attempt_id)
    if attempt is None:
        return
    attempt.has_output = True
    task = _task_of(state, event.attempt_id)
    if task is not None and task.first_token_at is None and task.attempt is attempt:
        task.first_token_at = state.now


def ended(state: BrainState, event: AttemptEnded) -> None:
    attempt = state.attempts.get(event.attempt_id)
    if attempt is None:
        return
    task = state.tasks.get(attempt.task_id)
    if isinstance(event.outcome, RunResult):
        token_usage.attempt_used(state, attempt, event.outcome)
        learning.run_ended(state, attempt, task, event.outcome)
    else:
        token_usage.attempt_used(state, attempt, event.used or RunResult(()), has_failed=True)
    if task is not None and attempt.attempt_id in task.unread:
        _ended_out_of_reach(state, task, attempt, event.outcome)
    if task is not None and task.attempt is attempt:
        if task.stopping is not None:
            task_life.end_stop(state, task, event.used if isinstance(event.outcome, TaskError) else event.outcome)
        elif not task.is_finished:
            _conclude(state, task, attempt, event.outcome)
    task_dispatch.free_slot(state, attempt)


def unknown(state: BrainState, event: AttemptUnknown) -> None:
    if attempt := state.attempts.get(event.attempt_id):
        attempt_loss.lose(state, attempt, Loss.UNKNOWN, "the worker does not know the task any more")


def _ended_out_of_reach(state: BrainState, task: Task, attempt: Attempt, outcome: RunResult | TaskError) -> None:
    """While its worker could not be reached. An answer that comes first is the task's; no other end counts."""
    if isinstance(outcome, RunResult) and not _was_given_up(outcome):
        attempt_loss.decide(state, task, attempt)
    else:
        del task.unread[attempt.attempt_id]


def _conclude(state: BrainState, task: Task, attempt: Attempt, outcome: RunResult | TaskError) -> None:
    """What the end of the present attempt means for its task."""
    if isinstance(outcome, TaskError) and outcome.reason in NOT_NOW:
        attempt_loss.go_on_elsewhere(state, task, attempt, Loss.STOPPED, "the worker does not take the task now")
    elif isinstance(outcome, TaskError):
        if not attempt_loss.failed_alone(state, task):
            task_life.finish(state, task, TaskState.FAILED, outcome)
    elif _was_given_up(outcome):
        attempt_loss.go_on_elsewhere(state, task, attempt, Loss.UNKNOWN, "the worker gave the task up")
    elif any(choice.finish_reason is FinishReason.DEADLINE for choice in outcome.choices):
        task_life.finish(state, task, TaskState.EXPIRED, task_life.end_of(state, task, outcome))
    else:
        task_life.finish(state, task, TaskState.COMPLETED, task_life.end_of(state, task, outcome))


def _was_given_up(result: RunResult) -> bool:
    """The task was not cancelled here: its worker had no reader for too long, or another controller told it to end."""
    return any(choice.finish_reason is FinishReason.CANCELLED for choice in result.choices)


def _task_of(state: BrainState, attempt_id: str) -> Task | None:
    """Unless its terminal was given."""
    attempt = state.attempts.get(attempt_id)
    task = state.tasks.get(attempt.task_id) if attempt else None
    return task if task is not None and task.terminal is None else None
