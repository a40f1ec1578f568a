"""Which tasks run beside which: a task that may end its worker runs beside no other such, and in the end alone."""

from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.rules import Lane
from orchestratord.core.state import BrainState


def may_join(state: BrainState, worker: Worker, lane: Lane) -> bool:
    """Whether a task of the lane may run beside what the worker runs now."""
    if not state.suspects:
        return True
    suspects = {state.attempts[attempt_id].task_id for attempt_id in worker.attempts} & state.suspects
    if any(state.tasks[task_id].suspicion.must_run_alone for task_id in suspects):
        return False
    if not lane.suspect:
        return True
    if state.tasks[lane.suspect].suspicion.must_run_alone:
        return not worker.attempts
    return not suspects
