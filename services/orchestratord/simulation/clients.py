"""Clients of a simulated day: they submit, read to the end, and come back when they are told to."""

from itertools import count

from llorch.errors import LlorchError
from orchestratord.core import effects, events
from orchestratord.core.facts.task import TaskRequest
from orchestratord.simulation.day import Arrival
from orchestratord.simulation.world import World

TRIES = 5
"""After so many refusals a client goes away: as many as usual client libraries try."""


class Clients:
    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = count(1)
        self.arrivals: dict[str, Arrival] = {}
        """By task."""
        self.refused: list[tuple[Arrival, LlorchError]] = []
        """Those that went away without an answer."""
        self.away = 0
        """So many will come back."""
        world.listeners.append(self._hears)

    def come(self, arrival: Arrival, tries: int = 1) -> None:
        task_id = f"task-{next(self._numbers)}"
        self._world.work[task_id] = arrival.work
        self.arrivals[task_id] = arrival
        request = TaskRequest(
            task_id,
            arrival.model,
            b"",
            "digest",
            1,
            app=arrival.app,
            priority=arrival.priority,
            deadline_s=arrival.deadline_s,
            prompt_tokens=arrival.work.tokens_in,
        )
        try:
            self._world.ask(events.TaskSubmitted(request))
        except LlorchError as error:
            del self._world.work[task_id], self.arrivals[task_id]
            if error.retry_after_ms is None or tries == TRIES:
                self.refused.append((arrival, error))
            else:
                self.away += 1
                self._world.schedule.after(error.retry_after_ms / 1000, lambda: self._come_back(arrival, tries + 1))
            return
        self._world.tell(events.ReaderAttached(task_id))

    def _come_back(self, arrival: Arrival, tries: int) -> None:
        self.away -= 1
        self.come(arrival, tries)

    def _hears(self, effect: effects.Effect) -> None:
        """A client that has read the end goes."""
        if isinstance(effect, effects.AppendTerminal):
            left = events.ReaderLeft(effect.task_id)
            self._world.schedule.after(0, lambda: self._world.tell(left))
