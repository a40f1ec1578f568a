"""Tasks that have to be finished in time: they end at their deadline, or before it where that can't be kept."""

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from orchestratord.core.facts.task import Task, TaskError, TaskState
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import task_life
from orchestratord.core.placement import prediction, promises, replicas
from orchestratord.core.placement.lanes import lane_of_task
from orchestratord.core.state import BrainState

_CLOSE_TO_DEADLINE_S = 0.1


def watch_deadline(state: BrainState, task: Task) -> None:
    if task.due_at is None:
        return
    state.timers.at(task.due_at, TimerKind.DEADLINE, task.task_id)
    watch_hope(state, task)


def watch_hope(state: BrainState, task: Task) -> None:
    """Until when a task that waits can start and is in time, if it runs for as long as such tasks do. Not of one that
    has output: how much it lacks is not known.
    """
    if task.due_at is None or task.first_token_at is not None:
        return
    run_s = prediction.run_s(state, task.request)
    if run_s is not None:
        state.timers.at(task.due_at - run_s, TimerKind.HOPE, task.task_id)


def hope_over(state: BrainState, task_id: str) -> None:
    """A task that would probably be late even if it started now lets those of its app pass that can be in time: else
    one that is late makes the next one late.
    """
    if task_id in state.queue and state.tasks[task_id].first_token_at is None:
        state.queue.let_others_pass(task_id)


def deadline_passed(state: BrainState, task_id: str) -> None:
    task = state.tasks.get(task_id)
    if task is None or task.is_finished:
        return
    if task.state is TaskState.RUNNING:
        task_life.stop(state, task, TaskState.EXPIRED, FinishReason.DEADLINE)
        return
    if state.lost_sight_until is not None and task_id in state.lost_sight:
        state.timers.at(state.lost_sight_until, TimerKind.DEADLINE, task_id)  # it may have run, and ended at it
        return
    message = (
        f"the deadline of {task.request.deadline_s:g} s passed while the task waited; allow more time or ask for less"
    )
    task_life.finish(state, task, TaskState.EXPIRED, _too_late(state, task, message))


def watch_latest_start(state: BrainState, task: Task) -> None:
    """A task that waits with a deadline is looked at again at the last moment at which it could still be done in time.

    As long as nothing is known of such tasks, it is looked at again after half of the time that is left.
    """
    if task.due_at is None or task.task_id not in state.queue:
        return
    least_ms = prediction.least_service_ms(state, task.request)
    look_at = (state.now + task.due_at) / 2 if least_ms is None else task.due_at - least_ms / 1000
    if look_at < task.due_at - _CLOSE_TO_DEADLINE_S:
        state.timers.at(look_at, TimerKind.LATEST_START, task.task_id)


def latest_start_passed(state: BrainState, task_id: str) -> None:
    """If even a start now would be too late, the task ends now rather than at its deadline. Not one with output, of
    which it is not known how much it lacks.
    """
    task = state.tasks.get(task_id)
    if task is None or task.task_id not in state.queue or task.due_at is None or task.first_token_at is not None:
        return
    least_ms = prediction.least_service_ms(state, task.request)
    left_s = task.due_at - state.now
    if least_ms is None or left_s * 1000 > least_ms:
        watch_latest_start(state, task)
        return
    message = (
        f"the task still waits, and of its deadline of {task.request.deadline_s:g} s only {max(0.0, left_s):.1f} s are "
        f"left, while it needs at least {least_ms / 1000:.1f} s; allow more time or ask for less"
    )
    task_life.finish(state, task, TaskState.EXPIRED, _too_late(state, task, message))


def _too_late(state: BrainState, task: Task, message: str) -> TaskError:
    """The deadline is not the reason where the task could not have gone on with any more time."""
    if task.promise is not None and not replicas.are_coming(state, lane_of_task(state, task)):
        return promises.unavailable(state, task.request.model, task.promise)
    return TaskError(Reason.DEADLINE_PASSED, message)
