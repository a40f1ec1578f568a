"""A running task goes back into the queue at its old place, and continues elsewhere from where its output ends."""

from orchestratord.core.effects import Narrate
from orchestratord.core.facts.admission import Waiting
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import Task, TaskState
from orchestratord.core.lives import forgetting, task_dispatch
from orchestratord.core.placement.lanes import lane_of_task
from orchestratord.core.state import BrainState


def requeue(state: BrainState, task: Task, because: str) -> None:
    attempt = task.attempt
    assert attempt is not None  # or it runs nowhere
    task.move_to(TaskState.QUEUED)
    task.attempt = None
    lane = _wait_at(state, task, attempt.place)
    state.emit(Narrate(task.task_id, because))
    if lane in state.waits_told:  # what it waits for is told again, since this task has not heard it
        state.waits_told[lane] = ()
    state.look_again = True


def take_back(state: BrainState, task: Task, attempt: Attempt) -> None:
    """An attempt that was out of reach goes on, before another one has begun."""
    forgetting.wait_over(state, state.queue.remove(task.task_id))
    task.move_to(TaskState.RUNNING)
    task.end_wait()
    task.attempt = attempt


def change_lane(state: BrainState, task: Task) -> None:
    """Where it may run may be another matter by now. A task that waits keeps its place; one that does not is left as it
    is.
    """
    if task.task_id not in state.queue or state.queue[task.task_id].lane == lane_of_task(state, task):
        return
    place = state.queue.remove(task.task_id)
    lane = _wait_at(state, task, place)
    forgetting.wait_over(state, place)
    if task.placeless_since is not None:
        state.waits_told.setdefault(lane, ())
    state.look_again = True


def _wait_at(state: BrainState, task: Task, place: Waiting) -> Lane:
    lane = lane_of_task(state, task)
    state.queue.add(
        task.task_id,
        place.model,
        place.priority,
        app=place.app,
        lane=lane,
        arrival=place.arrival,
        due_at=place.due_at,
        size=place.size,
        work=place.work,
    )
    return lane


def drop_promise_of_nothing(state: BrainState, task: Task, attempt: Attempt) -> None:
    """The promise is about bytes that were shown. Where there are none, the task may begin on another kind of card.

    Unless another attempt is out of reach, which may show some yet. A promise of before stays: what an earlier
    orchestrator has shown of it is not known.
    """
    if attempt.made_promise and task.first_token_at is None and not task.unread:
        task_dispatch.set_promise(state, task, None)
