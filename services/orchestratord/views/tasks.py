"""Tasks: where they run, or when they will."""

from dataclasses import dataclass

from orchestratord.core.facts.backlog import Backlog
from orchestratord.core.facts.task import Task, TaskState
from orchestratord.core.placement.lanes import lane_of_task
from orchestratord.core.placement.prediction import predict_start_of
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class TaskView:
    """`worker_id` is empty unless the task runs. Only one that waits has a position, and a start if that is known."""

    task: Task
    state: TaskState
    worker_id: str
    queue_position: int | None
    predicted_start_ms: int | None


def view(state: BrainState, task: Task) -> TaskView:
    before = state.queue.before(task.task_id) if task.task_id in state.queue else None
    return TaskView(
        task=task,
        state=state_of(task),
        worker_id=task.attempt.worker_id if task.attempt and task.state is TaskState.RUNNING else "",
        queue_position=None if before is None else before.tasks,
        predicted_start_ms=None if before is None else _predicted_start_ms(state, task, before),
    )


def state_of(task: Task) -> TaskState:
    """As it may be told. Until the store has how a durable task ended, that is told to no caller: without it, the next
    orchestrator would do the task again.
    """
    if task.request.durable and not task.terminal_shown and task.state in (TaskState.COMPLETED, TaskState.FAILED):
        return TaskState.RUNNING if task.attempts else TaskState.QUEUED
    return task.state


def _predicted_start_ms(state: BrainState, task: Task, before: Backlog) -> int | None:
    start = predict_start_of(state, task, lane_of_task(state, task), before)
    return None if start is None else round(start.mean)
