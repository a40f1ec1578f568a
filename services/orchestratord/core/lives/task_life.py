"""Tasks end: with an answer, an error or a cancel. Exactly one terminal each."""

from dataclasses import replace

from llorch.errors import Reason, ResourceExhausted
from llorch.finish_reason import FinishReason
from orchestratord.core.effects import AppendTerminal, ForgetTask, Narrate, PersistStop, PersistTerminal
from orchestratord.core.events import (
    OutputsTooLarge,
    OutputTooLarge,
    ReaderAttached,
    ReaderLeft,
    StopsCutShort,
    TaskCancelled,
    TaskNotKept,
    TerminalPersisted,
)
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.task import (
    CancelOutcome,
    RunResult,
    Stopped,
    Task,
    TaskEnd,
    TaskError,
    TaskState,
    Terminal,
)
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import app_changes, forgetting, learning, session_life, task_dispatch
from orchestratord.core.state import BrainState

LINE_IS_BACK_WITHIN_S = 30.0
"""The time for which a gateway looks for the orchestrator, unless its operator sets another."""

STOPS_WITHIN_S = 1.0
"""A cancelled run ends within a step of its engine, in a prompt within a quarter of a second."""

MOST_READERS = 4096
"""Of all tasks together. One that does not read holds up to 100 KiB, until it is dropped."""
MOST_READERS_OF_TASK = 64
_READERS_RETRY_MS = 1000

_CUT_SHORT = frozenset({FinishReason.CANCELLED, FinishReason.DEADLINE})
_MIB = 1024 * 1024


def cancel(state: BrainState, event: TaskCancelled) -> CancelOutcome:
    """Idempotent: a finished task stays as it is. An unknown one is refused as NOT_FOUND."""
    task = state.task_seen_by(event.app, event.task_id)
    if task.is_finished:
        return CancelOutcome.ALREADY_FINISHED
    stop(state, task, TaskState.CANCELLED, FinishReason.CANCELLED)
    return CancelOutcome.CANCELLED


def stop(state: BrainState, task: Task, final: TaskState, finish_reason: FinishReason) -> None:
    """End a task early. If it runs, its terminal follows with what its worker says that the run came to, and its slot
    is free then; a worker that does not say so soon is not waited for. That it has ended is kept at once.
    """
    if task.task_id in state.lost_sight:
        _stop_when_found(state, task, final, finish_reason)
    elif task.attempt is None or task.attempt.ended:
        finish(state, task, final, _cut_off(state, task, finish_reason))
    else:
        _begin_stop(state, task, final, finish_reason)
        stop_run(state, task)


def stop_run(state: BrainState, task: Task) -> None:
    """Of a task that is being ended."""
    task_dispatch.cancel_attempt(state, task)
    state.timers.at(state.now + STOPS_WITHIN_S, TimerKind.STOP, task.task_id)


def _stop_when_found(state: BrainState, task: Task, final: TaskState, finish_reason: FinishReason) -> None:
    """It may run, and its readers were shown what it came to until now."""
    state.lost_sight[task.task_id] = state.queue[task.task_id]
    _begin_stop(state, task, final, finish_reason)


def _begin_stop(state: BrainState, task: Task, final: TaskState, finish_reason: FinishReason) -> None:
    _leave(state, task, final)
    task.stopping = finish_reason
    if task.request.durable:
        state.emit(PersistStop(task.task_id, _cut_off(state, task, finish_reason)))


def stop_wait_over(state: BrainState, task_id: str) -> None:
    task = state.tasks.get(task_id)
    if task is not None and task.stopping is not None:
        end_stop(state, task)


def stops_cut_short(state: BrainState, _: StopsCutShort) -> None:
    for task in state.tasks.values():
        if task.stopping is not None:
            end_stop(state, task)


def tell_running(state: BrainState, worker: Worker, sentence: str) -> None:
    """The readers of what runs on the worker. A run may be there yet whose task is over."""
    for attempt_id in sorted(worker.attempts):
        task = state.tasks.get(state.attempts[attempt_id].task_id)
        if task is not None and not task.is_finished:
            state.emit(Narrate(task.task_id, sentence))


def fail_waiting(state: BrainState, model: str, error: TaskError) -> None:
    """All tasks that wait for the model fail with the reason why it does not come."""
    for task_id in state.queue.waiting_for(model):
        finish(state, state.tasks[task_id], TaskState.FAILED, error)


def finish(state: BrainState, task: Task, final: TaskState, terminal: Terminal) -> None:
    _leave(state, task, final)
    _give_terminal(state, task, terminal)


def _leave(state: BrainState, task: Task, final: TaskState) -> None:
    if task.task_id in state.queue:
        forgetting.wait_over(state, state.queue.remove(task.task_id))
        app_changes.may_ask_for_more(state, task.request.app)
    task.move_to(final)
    state.timers.cancel(task.task_id, TimerKind.DEADLINE, TimerKind.HOPE, TimerKind.LATEST_START)
    state.suspects.discard(task.task_id)
    for attempt in task.unread.values():
        task_dispatch.supersede(state, attempt)
    task.unread.clear()
    session_life.turn_ended(state, task.request)
    state.warmth.task_went(task.task_id)
    learning.judge_end(state, task)
    task.request = task.request.without_work()


def end_stop(state: BrainState, task: Task, result: RunResult | None = None) -> None:
    """The terminal of a task that was ended early: with the result of its run, or without it as much as is known."""
    reason, task.stopping = task.stopping, None
    assert reason is not None  # or it was not ended early
    if result is None or not result.choices:
        _give_terminal(state, task, _cut_off(state, task, reason))
        return
    choices = tuple(
        replace(choice, finish_reason=reason) if choice.finish_reason in _CUT_SHORT else choice
        for choice in result.choices
    )
    _give_terminal(state, task, end_of(state, task, replace(result, choices=choices)))


def end_of(state: BrainState, task: Task, result: RunResult) -> TaskEnd:
    """The terminal that follows from what its last worker tells."""
    return TaskEnd(_of_all_attempts(state, task, result), *_times(state, task))


def _cut_off(state: BrainState, task: Task, reason: FinishReason) -> Stopped:
    ran_ms = 0 if task.first_token_at is None else round((state.now - task.first_token_at) * 1000)
    return Stopped(reason, *_times(state, task), task.tokens_in, task.cached_tokens, ran_ms)


def _of_all_attempts(state: BrainState, task: Task, result: RunResult) -> RunResult:
    """The time from the first token on, where an earlier attempt brought that. What is counted in tokens, its log
    knows.
    """
    if task.attempts < 2 or task.first_token_at is None:
        return result
    return replace(result, decode_ms=round((state.now - task.first_token_at) * 1000))


def _give_terminal(state: BrainState, task: Task, terminal: Terminal) -> None:
    task.terminal = terminal
    if task.request.durable:
        state.emit(PersistTerminal(task.task_id, terminal))
    else:
        _show(state, task, terminal)


def not_kept(state: BrainState, event: TaskNotKept) -> None:
    """Nothing was done for it. Its submitter is refused, and the same `request_id` is a new task: there is no other."""
    state.queue.answered(event.task_id)
    task = state.tasks.get(event.task_id)
    if task is None:
        return
    _release_request_id(state, task)
    task.was_refused = True
    if not task.is_finished:
        finish(state, task, TaskState.FAILED, TaskError(event.reason, event.message))


def _release_request_id(state: BrainState, task: Task) -> None:
    """A later task may have it by now."""
    key = (task.request.app, task.request.request_id)
    if state.by_request_id.get(key) == task.task_id:
        del state.by_request_id[key]


def output_too_large(state: BrainState, event: OutputTooLarge) -> None:
    task = state.tasks.get(event.task_id)
    if task is not None and not task.is_finished:
        message = (
            f"the output has reached the {event.most_bytes // _MIB} MiB that are kept of one task; ask for fewer "
            "tokens, choices or log probabilities"
        )
        _fail_running(state, task, TaskError(Reason.OUTPUT_TOO_LARGE, message))


def outputs_too_large(state: BrainState, event: OutputsTooLarge) -> None:
    """One goes: the oldest that is finished, and only if there is none, the one with the largest output."""
    if state.finished:
        forget(state, next(iter(state.finished)))
        return
    task = state.tasks.get(event.largest)
    if task is not None and not task.is_finished:
        message = (
            "the outputs of all running tasks together are larger than the orchestrator may keep, and this one's is "
            "the largest; send the request again when less runs, or raise output_memory_mib of the orchestrator"
        )
        _fail_running(state, task, TaskError(Reason.OUTPUT_TOO_LARGE, message))


def _fail_running(state: BrainState, task: Task, error: TaskError) -> None:
    finish(state, task, TaskState.FAILED, error)
    task_dispatch.cancel_attempt(state, task)


def terminal_persisted(state: BrainState, event: TerminalPersisted) -> None:
    task = state.tasks.get(event.task_id)
    if task is not None and task.terminal is not None and not task.terminal_shown:
        _show(state, task, task.terminal)


def reader_attached(state: BrainState, event: ReaderAttached) -> None:
    task = state.task(event.task_id)
    if task.readers >= MOST_READERS_OF_TASK:
        raise _too_many_readers(f"task '{task.task_id}' has {task.readers} readers already")
    refuse_too_many_readers(state)
    task.readers += 1
    task.to_be_read_by = None
    state.readers += 1


def refuse_too_many_readers(state: BrainState) -> None:
    """Also before a task is admitted that is nothing without its reader."""
    if state.readers >= MOST_READERS:
        raise _too_many_readers(f"this orchestrator has {state.readers} readers of tasks already")


def reader_left(state: BrainState, event: ReaderLeft) -> None:
    state.readers -= 1
    task = state.tasks.get(event.task_id)
    if task is None:
        return
    task.readers -= 1
    if event.may_return:
        task.may_return_until = state.now + LINE_IS_BACK_WITHIN_S
    if task.readers or task.request.durable:
        return
    if not task.is_finished or state.now < task.may_return_until:
        begin_reader_grace(state, task, at_least_until=task.may_return_until)
    elif task.attempt is not None:
        task_dispatch.release_if_done(state, task.attempt)


def begin_reader_grace(state: BrainState, task: Task, *, at_least_until: float = 0.0) -> None:
    """No reader is attached: one has to attach within the grace, or until that time where it is later."""
    task.to_be_read_by = max(state.now + state.config.disconnect_grace_s, at_least_until)
    state.timers.at(task.to_be_read_by, TimerKind.READER_GRACE, task.task_id)


def reader_grace_over(state: BrainState, task_id: str) -> None:
    task = state.tasks.get(task_id)
    if task is None or task.to_be_read_by is None or state.now < task.to_be_read_by:
        return
    if not task.is_finished:
        stop(state, task, TaskState.CANCELLED, FinishReason.CANCELLED)
    elif task.attempt is not None:
        task_dispatch.release_if_done(state, task.attempt)


def forget(state: BrainState, task_id: str) -> None:
    """A finished task is no longer kept; its id is remembered for a while, so that the answer can be EXPIRED."""
    if task_id not in state.finished:
        return
    del state.finished[task_id]
    state.timers.cancel(task_id, TimerKind.RETENTION, TimerKind.READER_GRACE)
    task = state.tasks.pop(task_id)
    _release_request_id(state, task)
    state.forgotten.add(task_id)
    state.emit(ForgetTask(task_id))
    if task.attempt is not None:
        task_dispatch.release_if_done(state, task.attempt)


def _show(state: BrainState, task: Task, terminal: Terminal) -> None:
    """From now on the task is kept for its retention time; not before, since its readers wait for the terminal.

    One that was refused is not kept at all: however often it is sent again, others stay for their time.
    """
    task.terminal_shown = True
    state.emit(AppendTerminal(task.request, terminal))
    if task.attempt is not None:
        task_dispatch.release_if_done(state, task.attempt)
    keep_finished(state, task, state.config.task_retention_s)
    if task.was_refused:
        forget(state, task.task_id)


def keep_finished(state: BrainState, task: Task, for_s: float) -> None:
    """The oldest go where there are too many."""
    state.finished[task.task_id] = None
    state.timers.at(state.now + for_s, TimerKind.RETENTION, task.task_id)
    while len(state.finished) > state.config.tasks_retained:
        forget(state, next(iter(state.finished)))


def _too_many_readers(what: str) -> ResourceExhausted:
    return ResourceExhausted(
        Reason.TOO_MANY_CALLS,
        f"{what}; end some of the streams that are open, or try again later",
        retry_after_ms=_READERS_RETRY_MS,
    )


def _times(state: BrainState, task: Task) -> tuple[int, int]:
    """(queue_ms, first_token_ms), both from admission: until now for a task that has not started; 0 without a token."""
    started, first = task.started_at, task.first_token_at
    return (
        round(((state.now if started is None else started) - task.created_at) * 1000),
        0 if first is None else max(1, round((first - task.created_at) * 1000)),
    )
