"""Attempts begin, bring output, and end or are lost; what that means for their tasks."""

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from orchestratord.core.events import AttemptEnded, AttemptFirstToken, AttemptStarted, AttemptUnknown
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.task import RunResult, Task, TaskError, TaskState
from orchestratord.core.lives import learning, task_dispatch, task_life, token_usage
from orchestratord.core.state import BrainState


def started(state: BrainState, event: AttemptStarted) -> None:
    """A worker reports the start again when its link attaches again; the first report counts."""
    attempt = state.attempts.get(event.attempt_id)
    if attempt is not None and not attempt.started:
        attempt.started = True
        attempt.tokens_in, attempt.cached_tokens = event.tokens_in, event.cached_tokens
        if task := _task_of(state, event.attempt_id):
            task.started_at = state.now
            task.tokens_in, task.cached_tokens = event.tokens_in, event.cached_tokens


def first_token(state: BrainState, event: AttemptFirstToken) -> None:
    """Of an attempt whose place another one took, or is to take, nothing comes into the log."""
    task = _task_of(state, event.attempt_id)
    if task is not None and task.first_token_at is None and task.attempt is state.attempts[event.attempt_id]:
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
    if task is not None and task.attempt is attempt:
        if task.stopping is not None:
            task_life.end_stop(state, task, event.used if isinstance(event.outcome, TaskError) else event.outcome)
        elif not task.is_finished:
            _conclude(state, task, event.outcome)
    task_dispatch.free_slot(state, attempt)


def _conclude(state: BrainState, task: Task, outcome: RunResult | TaskError) -> None:
    """What the end of the present attempt means for its task."""
    reasons = {choice.finish_reason for choice in outcome.choices} if isinstance(outcome, RunResult) else set()
    if isinstance(outcome, TaskError):
        task_life.finish(state, task, TaskState.FAILED, outcome)
    elif FinishReason.CANCELLED in reasons:
        # The task was not cancelled here: another controller told the worker to end.
        task_life.finish(state, task, TaskState.FAILED, _lost("the worker that ran the task was stopped"))
    elif FinishReason.DEADLINE in reasons:
        task_life.finish(state, task, TaskState.EXPIRED, task_life.end_of(state, task, outcome))
    else:
        task_life.finish(state, task, TaskState.COMPLETED, task_life.end_of(state, task, outcome))


def unknown(state: BrainState, event: AttemptUnknown) -> None:
    if attempt := state.attempts.get(event.attempt_id):
        lose(state, attempt, "the worker does not know the task any more")


def lose(state: BrainState, attempt: Attempt, what_happened: str) -> None:
    """The attempt is gone with its worker. Trying again elsewhere comes with failover; until then the task fails."""
    task = state.tasks.get(attempt.task_id)
    token_usage.attempt_lost(state, attempt)
    if task is not None and task.attempt is attempt:
        if task.stopping is not None:
            task_life.end_stop(state, task)
        elif not task.is_finished:
            task_life.finish(state, task, TaskState.FAILED, _lost(what_happened))
    task_dispatch.free_slot(state, attempt)


def _lost(what_happened: str) -> TaskError:
    return TaskError(Reason.WORKER_LOST, f"{what_happened}; send the request again")


def _task_of(state: BrainState, attempt_id: str) -> Task | None:
    """Unless its terminal was given."""
    attempt = state.attempts.get(attempt_id)
    task = state.tasks.get(attempt.task_id) if attempt else None
    return task if task is not None and task.terminal is None else None
