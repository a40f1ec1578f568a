"""Which runs give way to a task of a higher class.

A run that gives way ends at its next token. Its task keeps its place in the queue, and another attempt goes on from
where the output ends. The run that began last gives way first: least of it has to be evaluated again.

A lower class gets on however much of a higher one comes. One run at a time, of each model and class, keeps its slot to
its end: one that began when its class had had no slot for as long as it may be passed over, or one of a task that has
given way as long ago.
"""

from collections.abc import Sequence

from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import Task, TaskState
from orchestratord.core.placement.continuation import can_go_on_elsewhere
from orchestratord.core.state import BrainState


def gives_way(state: BrainState, attempt: Attempt, priority: str) -> bool:
    """Whether the run would, to a task of this class."""
    classes = state.config.priorities
    if attempt.has_grant or classes.index(attempt.place.priority) <= classes.index(priority):
        return False
    task = state.tasks.get(attempt.task_id)
    return (
        task is not None
        and task.attempt is attempt
        and task.state is TaskState.RUNNING
        and task.stopping is None
        and not task.suspicion.is_hot
        and can_go_on_elsewhere(state, task, attempt)
    )


def worker_gives_way(state: BrainState, worker: Worker, priority: str) -> bool:
    """Whether all that runs there would, or is about to end."""
    attempts = (state.attempts[attempt_id] for attempt_id in worker.attempts)
    would = all(attempt.gives_way is not None or gives_way(state, attempt, priority) for attempt in attempts)
    return would and (worker.attached or not worker.attempts)


def highest_class(state: BrainState, worker: Worker) -> int:
    """Of what runs there, by the place of its class among all; beyond the last, if nothing runs."""
    classes = state.config.priorities
    attempts = (state.attempts[attempt_id] for attempt_id in worker.attempts)
    return min((classes.index(attempt.place.priority) for attempt in attempts), default=len(classes))


def has_grants(state: BrainState, worker: Worker) -> bool:
    return any(state.attempts[attempt_id].has_grant for attempt_id in worker.attempts)


def slots_to_come(state: BrainState, model: str, priority: str, lane: Lane) -> int:
    """Slots of runs that give way already to tasks of this class and lane, and that have not ended yet."""
    return sum(
        attempt.gives_way == (priority, lane) and _is_attached(state, attempt)
        for attempt in state.attempts.giving_way(model)
    )


def classes_below(state: BrainState, priority: str) -> Sequence[str]:
    """The lowest last."""
    classes = state.config.priorities
    return classes[classes.index(priority) + 1 :]


def gets_grant(state: BrainState, task: Task) -> bool:
    """Whether the run that begins now is to keep its slot to its end."""
    if state.queue.lacks_slots(task.task_id):
        return True
    if task.gave_way_at is None or state.now - task.gave_way_at < state.config.max_starvation_s:
        return False
    place = state.queue[task.task_id]
    return not any(_has_its_grant(state, attempt) for attempt in state.attempts.of_class(place.model, place.priority))


def _has_its_grant(state: BrainState, attempt: Attempt) -> bool:
    """Not one that is out of reach while its task goes on elsewhere."""
    task = state.tasks.get(attempt.task_id)
    return attempt.has_grant and task is not None and task.attempt is attempt


def _is_attached(state: BrainState, attempt: Attempt) -> bool:
    worker = state.fleet.workers.get(attempt.worker_id)
    return worker is not None and worker.attached
