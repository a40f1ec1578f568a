"""Promises: what a deterministic task shows comes of one fingerprint, and it is given up only if there is no way."""

from typing import TYPE_CHECKING

from llorch.errors import Reason
from orchestratord.core import effects, events
from orchestratord.core.facts.task import TaskError
from orchestratord.simulation.process import Process
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World


class PromiseRules:
    """Follows what readers see: output of the attempt that was started last, until it is cancelled."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._writers: dict[str, list[str]] = {}
        """By task: the attempts that may write, or might."""
        self._process: dict[str, tuple[str, Process]] = {}
        """By attempt that may write: its task, and where it really runs."""
        self._shown_by: dict[str, Process] = {}
        """By deterministic task: the process whose output was seen first."""
        self.moved = 0
        self.given_up = 0

    def heard(self, event: events.Event) -> None:
        if isinstance(event, events.AttemptFirstToken) and (found := self._process.get(event.attempt_id)):
            self._shown_by.setdefault(*found)

    def wants(self, effect: effects.Effect) -> None:
        match effect:
            case effects.StartRun(worker_id=worker_id, attempt_id=attempt_id, request=request):
                if request.deterministic:
                    self._starts(request.task_id, attempt_id, self._world.links[worker_id].process)
            case effects.CancelRun(attempt_id=attempt_id, keeps_output=False):
                self._process.pop(attempt_id, None)
            case effects.PersistTerminal() | effects.AppendTerminal():
                self._ends(effect)

    def _starts(self, task_id: str, attempt_id: str, process: Process) -> None:
        if (shown_by := self._shown_by.get(task_id)) is not None:
            self.moved += 1
            if not process.fingerprint or process.fingerprint != shown_by.fingerprint:
                raise Violation(
                    self._world,
                    f"{task_id} began on '{shown_by.fingerprint}' and goes on with other bytes on "
                    f"'{process.fingerprint}'",
                )
        self._writers.setdefault(task_id, []).append(attempt_id)
        self._process[attempt_id] = task_id, process

    def _ends(self, effect: effects.PersistTerminal | effects.AppendTerminal) -> None:
        terminal = effect.terminal
        shown_by = self._shown_by.pop(effect.task_id, None)
        for attempt_id in self._writers.pop(effect.task_id, ()):
            self._process.pop(attempt_id, None)
        if isinstance(terminal, TaskError) and terminal.reason is Reason.DETERMINISM_UNAVAILABLE and shown_by:
            self.given_up += 1
            self._check_that_it_had_to(effect.task_id, shown_by)

    def _check_that_it_had_to(self, task_id: str, shown_by: Process) -> None:
        """By the worlds without rules: those may keep a task away from a worker that would do."""
        if any(rule.mode != "PREFER" for rule in self._world.plan.rules):
            return
        fleet, model = self._world.brain.state.fleet, shown_by.spec.model
        for worker in fleet.workers_of_model(model):
            process = self._world.links[worker.worker_id].process if worker.worker_id in self._world.links else None
            if process is None or not worker.serves or not fleet.node_is_ready(worker) or not process.fingerprint:
                continue
            if process.fingerprint == shown_by.fingerprint:
                raise Violation(self._world, f"{task_id} is given up although {worker.worker_id} gives the same bytes")
