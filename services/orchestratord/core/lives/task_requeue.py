"""A running task goes back into the queue at its old place, and continues elsewhere from where its output ends."""

from orchestratord.core.effects import CancelRun, Narrate
from orchestratord.core.facts.task import Attempt, TaskState
from orchestratord.core.state import BrainState


def can_go_on_elsewhere(state: BrainState, attempt: Attempt) -> bool:
    """Its output has not begun, or its engine can continue from the tokens that there are."""
    task = state.tasks.get(attempt.task_id)
    if task is None or task.first_token_at is None:
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
    place = attempt.place
    state.queue.add(task.task_id, place.model, place.priority, app=place.app, lane=place.lane, arrival=place.arrival)
    state.emit(CancelRun(attempt.worker_id, attempt.attempt_id), Narrate(task.task_id, because))
    state.look_again = True
