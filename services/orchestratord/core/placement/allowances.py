"""How many tasks of an app may start beside those that run. No model is loaded for tasks that may not."""

import math

from orchestratord.core.facts.fair_queue import Allowance
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.core.state import BrainState


def may_start(state: BrainState, model: str) -> Allowance:
    """By app, how many more tasks of it may start of this model. What waits for a model that is on its way will start
    there: for an app that may run one task at once, one model is loaded at a time.
    """

    def allowance(name: str) -> float:
        app = state.apps.find(name)
        if app is None or not app.max_concurrent_tasks:
            return math.inf
        left = app.max_concurrent_tasks - state.apps.usage(name).running
        waiting = state.queue.waiting_of_app(name)
        return left - sum(tasks for other, tasks in waiting.items() if other != model and _is_coming(state, other))

    return allowance


def _is_coming(state: BrainState, model: str) -> bool:
    """A worker of the model is on its way, and no task has come to it yet. A load that was asked for, and has no place,
    is not on its way.
    """
    is_loading = any(load.phase is not LoadPhase.WAITING for load in state.loads.of_model(model))
    return is_loading or any(
        worker.serves and not worker.was_attached for worker in state.fleet.workers_of_model(model)
    )
