"""What the workers mean for a task that comes while the queue is full."""

from dataclasses import dataclass

from orchestratord.core.facts.backlog import Backlog
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import TaskRequest
from orchestratord.core.placement.prediction import predict_start
from orchestratord.core.placement.workers import place_task
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A `queue_room.Prospect`."""

    state: BrainState
    request: TaskRequest
    lane: Lane

    def starts_at_once(self) -> bool:
        """There is a slot for it, and none waits that goes before it."""
        queue, model = self.state.queue, self.request.model
        if self.request.app in queue.held:
            return False
        ready = (worker for worker in self.state.fleet.workers_of_model(model) if worker.takes_runs)
        has_slot = queue.waiting(model) < sum(worker.slots_free for worker in ready)
        return has_slot and place_task(self.state, self.request, self.lane).chosen is not None

    def first_place_s(self) -> float:
        """By the model of the task, where most of what waits of its app waits for that."""
        waiting, model = self.state.queue.waiting_of_app(self.request.app), self.request.model
        if 2 * waiting.get(model, 0) < sum(waiting.values()):
            return 0.0
        start = predict_start(self.state, self.lane, self.request.priority, Backlog())
        return 0.0 if start is None else start.mean / 1000
