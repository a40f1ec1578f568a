"""A running task goes back into the queue at its old place, and continues elsewhere from where its output ends."""

from orchestratord.core.effects import CancelRun, Narrate
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.task import Task, TaskState
from orchestratord.core.lives import task_dispatch
from orchestratord.core.placement.lanes import lane_of
from orchestratord.core.state import BrainState


def can_go_on_elsewhere(state: BrainState, attempt: Attempt) -> bool:
    """Its output has not begun, or its engine can continue from the tokens that there are."""
    task = state.tasks.get(attempt.task_id)
    if task is None or state.catalog.find(task.request.model) is None:
        return False
    if task.first_token_at is None:
        return True
    engine = state.fleet.workers[attempt.worker_id].engine
    return engine is not None and engine.resumes


def requeue(state: BrainState, attempt: Attempt, because: str) -> None:
    """Later output of the old attempt is dropped, and its slot is free when its worker reports the end of the run."""
    task = state.tasks.get(attempt.task_id)
    if task is None or task.is_finished or task.attempt is not attempt:
        return
    task.move_to(TaskState.QUEUED)
    task.attempt = None
    _drop_promise_of_nothing(state, task, attempt)
    place, lane = attempt.place, lane_of(state, task.request, task.promise)
    state.queue.add(
        task.task_id,
        place.model,
        place.priority,
        app=place.app,
        lane=lane,
        arrival=place.arrival,
        size=place.size,
        work=place.work,
    )
    state.emit(CancelRun(attempt.worker_id, attempt.attempt_id), Narrate(task.task_id, because))
    if lane in state.waits_told:  # what it waits for is told again, since this task has not heard it
        state.waits_told[lane] = ()
    state.look_again = True


def _drop_promise_of_nothing(state: BrainState, task: Task, attempt: Attempt) -> None:
    """The promise is about bytes that were shown. Where there are none, the task may begin on another kind of card.

    A promise of before stays: what an earlier orchestrator has shown of it is not known.
    """
    if attempt.made_promise and task.first_token_at is None:
        task_dispatch.set_promise(state, task, None)
