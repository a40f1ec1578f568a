"""Runs end, and go on later, for tasks of a higher class that wait for their slot or for their worker's memory."""

from collections.abc import Hashable
from itertools import islice

from orchestratord.core.effects import RunGaveWay
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.loads import Load
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import Task
from orchestratord.core.lives import attempt_loss, deadlines
from orchestratord.core.placement import allowances, giving_way, turns
from orchestratord.core.placement.lanes import lane_of_place
from orchestratord.core.placement.workers import first_to_give_way
from orchestratord.core.state import BrainState

MOST_LANES = 4
"""For which slots are looked for after one event, of each model."""


def give_slots(state: BrainState) -> None:
    """To tasks that had no free slot, of models for which tasks of a lower class run."""
    crowded, state.crowded = state.crowded, {}
    for model in crowded:
        if any(next(state.attempts.of_class(model, lower), None) for lower in state.config.priorities[1:]):
            for task, slots in islice(_wanted(state, model).items(), MOST_LANES):
                _give_slots_to(state, state.tasks[task], slots)


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
            _give_way(state, state.attempts[attempt_id], priority, load.lane)


def _wanted(state: BrainState, model: str) -> dict[str, int]:
    """How many tasks could start if they had slots, by the first of each lane and class above the lowest."""
    allowance = allowances.may_start(state, model)
    left: dict[str, float] = {}
    first: dict[tuple[str, Hashable], str] = {}
    wanted: dict[str, int] = {}
    for task_id in state.queue.heads(model):
        place = state.queue[task_id]
        if place.priority == state.config.priorities[-1]:
            continue
        may_start = left.setdefault(place.app, max(0.0, allowance(place.app)))
        tasks = int(min(state.queue.alike(task_id), may_start))
        left[place.app] -= tasks
        of_lane = first.setdefault((place.priority, place.lane), task_id)
        wanted[of_lane] = wanted.get(of_lane, 0) + tasks
    return wanted


def _give_slots_to(state: BrainState, task: Task, tasks: int) -> None:
    place, priority = state.queue[task.task_id], task.request.priority
    lane = lane_of_place(place)
    slots = tasks - giving_way.slots_to_come(state, place.model, priority, lane)
    while slots > 0 and (attempt := first_to_give_way(state, task)) is not None:
        _give_way(state, attempt, priority, lane)
        slots -= 1


def _give_way(state: BrainState, attempt: Attempt, priority: str, lane: Lane) -> None:
    if attempt.gives_way is not None:
        return
    task = state.tasks[attempt.task_id]
    state.attempts.give_way(attempt, priority, lane)
    task.gave_way_at = state.now if task.gave_way_at is None else task.gave_way_at
    state.emit(RunGaveWay(task.request.model, task.request.priority))
    attempt_loss.move(state, task, f"gives way to a task of class '{priority}'; goes on from here when it has a slot")
    deadlines.watch_hope(state, task)
