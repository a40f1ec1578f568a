"""Whether another attempt can take a task over from where its output ends."""

from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.task import Task
from orchestratord.core.state import BrainState


def can_go_on_elsewhere(state: BrainState, task: Task, attempt: Attempt) -> bool:
    """Its output has not begun, or its engine can continue from the tokens that there are."""
    if state.catalog.find(task.request.model) is None:
        return False
    return task.first_token_at is None or attempt.resumes
