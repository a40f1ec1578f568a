"""Runs end, and go on later, for tasks of a higher class that wait for their slot or for their worker's memory."""

from orchestratord.core.effects import RunGaveWay
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.loads import Load
from orchestratord.core.lives import attempt_loss
from orchestratord.core.placement import allowances, giving_way, turns
from orchestratord.core.placement.workers import first_to_give_way
from orchestratord.core.state import BrainState


def give_slots(state: BrainState) -> None:
    """To tasks that had no free slot, of models for which tasks of a lower class run."""
    crowded, state.crowded = state.crowded, {}
    for model in crowded:
        if any(next(state.attempts.of_class(model, lower), None) for lower in state.config.priorities[1:]):
            _give_slots_of(state, model)


def empty_workers(state: BrainState, load: Load) -> None:
    """Of those that leave for the load: where nothing else runs that would keep them, runs of lower classes end now."""
    rival = turns.rival_of(state, load.lane)
    if rival is None:
        return
    priority = rival.first.request.priority
    for worker_id in sorted(load.waits_for):
        worker = state.fleet.workers.get(worker_id)
        if worker is None or not giving_way.worker_gives_way(state, worker, priority):
            continue
        for attempt_id in sorted(worker.attempts):
            _give_way(state, state.attempts[attempt_id], priority)


def _give_slots_of(state: BrainState, model: str) -> None:
    allowance = allowances.may_start(state, model)
    coming = giving_way.slots_to_come(state, model)
    for task_id in list(state.queue.heads(model)):
        task = state.tasks[task_id]
        wanted = min(state.queue.alike(task_id), allowance(task.request.app)) - coming
        coming = max(0, -int(wanted))
        while wanted >= 1 and (attempt := first_to_give_way(state, task)) is not None:
            _give_way(state, attempt, task.request.priority)
            wanted -= 1


def _give_way(state: BrainState, attempt: Attempt, priority: str) -> None:
    if attempt.gives_way:
        return
    task = state.tasks[attempt.task_id]
    attempt.gives_way = True
    task.gave_way_at = state.now if task.gave_way_at is None else task.gave_way_at
    state.emit(RunGaveWay(task.request.model, task.request.priority))
    attempt_loss.move(state, task, f"gives way to a task of class '{priority}'; goes on from here when it has a slot")
