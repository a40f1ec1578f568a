"""Clients: they submit, read, cancel and leave."""

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestratord.core import events
from orchestratord.core.facts.task import TaskRequest
from orchestratord.simulation.task_logs import PARTS
from orchestratord.simulation.true_size import TrueSize

if TYPE_CHECKING:
    from support.simulation.world import World

BURST_EVERY_S = 6.0


class Traffic:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.is_open = True
        self._count = 0

    def begin(self) -> None:
        plan = self.world.plan
        if plan.arrivals_per_s:
            self.world.schedule.after(self.world.random.expovariate(plan.arrivals_per_s), self._next)
        if plan.burst:
            self.world.schedule.after(self.world.random.uniform(0, BURST_EVERY_S), self._burst)

    def submit(self, **fields: object) -> str:
        """A task with these fields, the others drawn from the plan; its id."""
        plan, random = self.world.plan, self.world.random
        self._count += 1
        app = random.choices(plan.apps, [app.traffic for app in plan.apps])[0]
        model = random.choices(plan.models, [model.popularity for model in plan.models])[0]
        drawn: dict[str, object] = {
            "task_id": f"task-{self._count}",
            "model": model.name,
            "payload": b"",
            "content_digest": "digest",
            "seed": 1,
            "app": app.name,
            "priority": "batch" if self.world.happens(plan.batch_share) else "interactive",
            "deadline_s": random.uniform(0.5, 10.0) if self.world.happens(plan.deadlines) else None,
            "durable": self.world.happens(plan.durable_share),
            "deterministic": self.world.happens(plan.deterministic_share),
        }
        work = TrueSize(random.randint(*plan.tokens_in), random.randint(*plan.tokens_out))
        drawn["prompt_tokens"] = round(work.tokens_in * random.uniform(0.8, 1.3))
        request = TaskRequest(**(drawn | fields))  # type: ignore[arg-type]  # tests name fields
        self.world.work[request.task_id] = self._perhaps_poisoned(work)
        if self.world.tell(events.TaskSubmitted(request)) and not request.durable:
            self.world.tell(events.ReaderAttached(request.task_id))
            self._perhaps_stop(request)
        return request.task_id

    def _perhaps_poisoned(self, work: TrueSize) -> TrueSize:
        is_poisoned = self.world.happens(self.world.plan.poison)
        return replace(work, fatal_part=self.world.random.randrange(PARTS)) if is_poisoned else work

    def _perhaps_stop(self, request: TaskRequest) -> None:
        """Some cancel, some just go away."""
        if not self.world.happens(self.world.plan.cancels):
            return
        cancels = self.world.happens(0.5)
        event = events.TaskCancelled(request.task_id) if cancels else events.ReaderLeft(request.task_id)
        self.world.schedule.after(self.world.random.uniform(0, 5), lambda: self._stop(event))

    def _stop(self, event: events.TaskCancelled | events.ReaderLeft) -> None:
        if event.task_id in self.world.brain.state.tasks:
            self.world.tell(event)

    def _next(self) -> None:
        if self.is_open:
            self.submit()
            self.world.schedule.after(self.world.random.expovariate(self.world.plan.arrivals_per_s), self._next)

    def _burst(self) -> None:
        if self.is_open:
            for _ in range(self.world.plan.burst):
                self.submit()
            self.world.schedule.after(BURST_EVERY_S, self._burst)
