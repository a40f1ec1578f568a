"""Tasks: none lost, none twice, one terminal each; slots: none used twice."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.task import RunResult, TaskError, TaskRequest, TaskState, Terminal
from orchestratord.core.lives.attempt_loss import MOST_FRUITLESS
from orchestratord.core.lives.task_life import STOPS_WITHIN_S
from orchestratord.simulation.process import Process, SimulatedRun
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World

QUEUED, RUNNING, ENDING, FINISHED = "queued", "running", "ending", "finished"
"""ENDING: ended early, and its worker is to say what its run came to."""
_STATES = {TaskState.QUEUED: QUEUED, TaskState.RUNNING: RUNNING}
DEADLINE_SLACK_S = 1.1 + STOPS_WITHIN_S
LOOKS_AT_ALL_EVERY = 100
MOST_WORKERS_ENDED = 5
"""Twice among others, twice as the lone suspect among others, once alone."""


@dataclass(slots=True)
class Watched:
    """A task as it must be, by what was told and wanted."""

    request: TaskRequest
    submitted_at: float
    state: str = QUEUED
    shown: bool = False
    stop_kept: bool = False
    attempts: int = 0
    writer: str = ""
    """The attempt that the task runs as."""
    fruitless: int = 0
    """Attempts in a row that its workers gave up or did not know before they brought output."""
    workers_ended: int = 0
    unread: dict[str, str] = field(default_factory=dict)
    """Attempts that are out of reach, with their workers: the first of them and the writer to bring output goes on."""

    @property
    def model(self) -> str:
        return self.request.model


class TaskRules:
    def __init__(self, world: "World") -> None:
        self._world = world
        self.tasks: dict[str, Watched] = {}
        self.queued: dict[str, Watched] = {}
        self.open = 0
        self._deadlines: list[tuple[float, str]] = []
        self._live: dict[str, set[str]] = {}
        """By worker: attempts that were started there and that the brain was not told are over."""
        self._worker_of: dict[str, str] = {}
        self._task_of: dict[str, Watched] = {}
        self._aboard_once: set[str] = set()
        """Tasks that were aboard when their worker ended, and have not gone on since."""
        self._suspects: set[str] = set()
        """Those of them that were aboard when another one ended."""
        self._ended: set[str] = set()
        """Workers that a task has ended."""
        self._stopped: set[str] = set()
        self._attached: set[str] = set()
        self._touched: set[str] = set()
        self._checks = 0
        self._attempts = 0
        self._attempts_counted = 0

    # What happens.

    def heard(self, event: events.Event) -> None:
        match event:
            case events.AttemptEnded(attempt_id, outcome):
                if isinstance(outcome, RunResult) and all(
                    choice.finish_reason is not FinishReason.CANCELLED for choice in outcome.choices
                ):
                    self._decides(attempt_id)
                self._over(attempt_id)
            case events.AttemptFirstToken(attempt_id):
                if task := self._task_of.get(attempt_id):
                    task.fruitless = 0
            case events.AttemptUnknown(attempt_id):
                self._over(attempt_id)
            case events.OutputWentOn(task_id):
                self._is_no_suspect(task_id)
            case events.AttemptDecided(attempt_id):
                self._decides(attempt_id)
            case events.WorkerAttached(worker_id):
                self._attached.add(worker_id)
                self._is_back(worker_id)
            case events.WorkerSilent(worker_id):
                self._attached.discard(worker_id)

    def wants(self, effect: effects.Effect) -> None:
        if note := _NOTES.get(type(effect)):
            note(self, effect)

    def run_began(self, process: Process, run: SimulatedRun) -> None:
        """The truth at the worker: it never has more to do than slots."""
        if process.active > process.spec.slots:
            self._fail(f"worker {process.worker_id} runs {process.active} tasks in {process.spec.slots} slots")
        of_task = (other for other in process.runs.values() if other.task_id == run.task_id and other.is_active)
        if (
            sum(other.attempt_id in self._task_of for other in of_task) > 1
        ):  # one that is told to end may go on a moment
            self._fail(f"task {run.task_id} runs twice on {process.worker_id}")

    def opened(self, effect: effects.OpenLog) -> None:
        request = effect.request
        if request.task_id in self.tasks:
            self._fail(f"{request.task_id} was opened twice")
        now = self._world.schedule.now
        task = self.tasks[request.task_id] = self.queued[request.task_id] = Watched(request, now)
        self.open += 1
        self._touched.add(request.task_id)
        if request.deadline_s is not None:
            heapq.heappush(self._deadlines, (now + request.deadline_s + DEADLINE_SLACK_S, task.request.task_id))

    def started(self, effect: effects.StartRun) -> None:
        task = self._known(effect.request.task_id)
        if task.state is not QUEUED:
            self._fail(f"{task.request.task_id} is started while it is {task.state}")
        self._check_worker(effect.worker_id)
        live = self._live.setdefault(effect.worker_id, set())
        live.add(effect.attempt_id)
        slots = self._world.links[effect.worker_id].process.spec.slots
        if len(live) > slots:
            self._fail(f"{len(live)} attempts were started in the {slots} slots of {effect.worker_id}")
        self._worker_of[effect.attempt_id] = effect.worker_id
        self._task_of[effect.attempt_id] = task
        self._check_suspects(effect)
        task.state, task.writer = RUNNING, effect.attempt_id
        task.attempts += 1
        self._attempts += 1
        del self.queued[effect.request.task_id]
        self._touched.add(effect.request.task_id)

    def cancelled(self, effect: effects.CancelRun) -> None:
        """The attempt of a task that has not ended: it waits again, for another one. Or it is ended early."""
        task = self._task_of.pop(effect.attempt_id, None)
        if task is not None:
            task.unread.pop(effect.attempt_id, None)
        if task is None or task.writer != effect.attempt_id:
            return
        if task.state is RUNNING and effect.keeps_output:
            if task.request.durable and not task.stop_kept:
                self._fail(f"{task.request.task_id} was ended early, and would run again after a restart")
            task.state = ENDING
            self._touched.add(task.request.task_id)
        elif task.state is RUNNING:
            self._waits_again(task)

    def lost(self, effect: effects.AttemptLost) -> None:
        """The attempt that the task ran as, for good or until its worker is back."""
        task = self._known(effect.task_id)
        task.fruitless += effect.loss is Loss.UNKNOWN
        if effect.loss is Loss.LEASE:
            task.unread[task.writer] = self._worker_of[task.writer]
        self._waits_again(task)

    def _waits_again(self, task: Watched) -> None:
        """Unless it goes on at an attempt that was out of reach, and is back."""
        task.state, task.writer = QUEUED, ""
        for attempt_id, worker_id in task.unread.items():
            if worker_id in self._attached:
                self._goes_on(task, attempt_id)
                return
        self.queued[task.request.task_id] = task
        self._touched.add(task.request.task_id)

    def _decides(self, attempt_id: str) -> None:
        task = self._task_of.get(attempt_id)
        if task is None or task.state is FINISHED:
            return
        if attempt_id in task.unread:
            self._goes_on(task, attempt_id)
        if task.writer == attempt_id:
            task.unread.clear()

    def _is_back(self, worker_id: str) -> None:
        for task in list(self.queued.values()):
            for attempt_id, at in sorted(task.unread.items()):
                if at == worker_id and attempt_id in self._worker_of and task.state is QUEUED:
                    self._goes_on(task, attempt_id)

    def _goes_on(self, task: Watched, attempt_id: str) -> None:
        del task.unread[attempt_id]
        task.state, task.writer = RUNNING, attempt_id
        self.queued.pop(task.request.task_id, None)
        self._touched.add(task.request.task_id)

    def ended_its_worker(self, process: Process, task_id: str) -> None:
        """A task that ends every worker may end two by itself, and a few more while others were aboard."""
        self._ended.add(process.worker_id)
        task = self.tasks.get(task_id)
        if task is not None:
            task.workers_ended += 1
            if task.workers_ended > MOST_WORKERS_ENDED:
                self._fail(f"{task_id} has ended {task.workers_ended} workers, and is tried still")

    def stop_kept(self, effect: effects.PersistStop) -> None:
        self._known(effect.task_id).stop_kept = True

    def ended(self, effect: effects.PersistTerminal | effects.AppendTerminal) -> None:
        task = self._known(effect.task_id)
        is_shown_now = isinstance(effect, effects.AppendTerminal)
        if task.shown or (task.state is FINISHED and not is_shown_now):
            self._fail(f"{effect.task_id} gets a second terminal: {effect.terminal}")
        if task.state is not FINISHED:
            if is_shown_now and task.request.durable:
                self._fail(f"the terminal of {effect.task_id} is shown before it was kept")
            self.open -= 1
            self._check_reason(task, effect.terminal)
        task.state, task.shown = FINISHED, is_shown_now
        self.queued.pop(effect.task_id, None)
        self._is_no_suspect(effect.task_id)
        self._touched.add(effect.task_id)

    def _check_reason(self, task: Watched, terminal: Terminal) -> None:
        """No task is given up that could go on, or for what another one did."""
        reason = terminal.reason if isinstance(terminal, TaskError) else None
        if reason is Reason.WORKER_LOST and task.fruitless < MOST_FRUITLESS:
            self._fail(f"{task.request.task_id} is given up, and could go on: {terminal}")
        is_alone_to_blame = not self._world.plan.faults.worker_crashes
        if reason is Reason.QUARANTINED and is_alone_to_blame and not task.workers_ended:
            self._fail(f"{task.request.task_id} is blamed for what another task did: {terminal}")

    def tokens_used(self, _: effects.TokensUsed) -> None:
        self._attempts_counted += 1

    def forgotten(self, effect: effects.ForgetTask) -> None:
        if not self._known(effect.task_id).shown:
            self._fail(f"{effect.task_id} is forgotten before its readers had its terminal")
        del self.tasks[effect.task_id]

    def detached(self, effect: effects.DetachWorker) -> None:
        aboard = {task.request.task_id for task in map(self._task_of.get, self.live_on(effect.worker_id)) if task}
        if effect.worker_id in self._ended:
            self._suspects |= aboard & self._aboard_once
            self._aboard_once |= aboard
        self._attached.discard(effect.worker_id)
        for attempt_id in self._live.pop(effect.worker_id, ()):
            del self._worker_of[attempt_id]
            if (task := self._task_of.pop(attempt_id, None)) is not None:
                task.unread.pop(attempt_id, None)

    def released(self, effect: effects.ReleaseRuns) -> None:
        """The brain counts them as over, also those that it lost sight of."""
        for attempt_id in effect.attempt_ids:
            self._over(attempt_id)

    def stopped(self, effect: effects.StopWorker) -> None:
        self._stopped.add(effect.worker_id)

    def live_on(self, worker_id: str) -> set[str]:
        """Attempts that hold slots there, as far as the brain can know."""
        return self._live.get(worker_id, set())

    # What has to hold.

    def check(self) -> None:
        state = self._world.brain.state
        if len(state.queue) != len(self.queued):
            self._fail(f"{len(self.queued)} tasks have to wait, {len(state.queue)} are in the queue")
        self._checks += 1
        looked_at = self.tasks if self._checks % LOOKS_AT_ALL_EVERY == 0 else self._touched
        for task_id in looked_at:
            self._check_task(task_id)
        self._touched.clear()

    def check_deadlines(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self._world.schedule.now:
            _, task_id = heapq.heappop(self._deadlines)
            task = self.tasks.get(task_id)
            if task is not None and task.state is not FINISHED:
                self._fail(f"{task_id} is {task.state} after its deadline")

    def all_have_ended(self) -> bool:
        return not self.open and all(task.shown for task in self.tasks.values())

    def at_rest(self) -> None:
        """Long after everything was healed: no task waits, no task runs, no slot is held."""
        left = sorted(task_id for task_id, task in self.tasks.items() if not task.shown)
        if left:
            waiting = [task_id for task_id in left if task_id in self.queued]
            self._fail(f"never ended: {', '.join(left[:10])} (waiting of them: {len(waiting)} of {len(left)})")
        state = self._world.brain.state
        if state.attempts:
            self._fail(f"attempts are left: {sorted(state.attempts)}")
        held = {worker.worker_id: sorted(worker.attempts) for worker in state.fleet.workers.values() if worker.attempts}
        if held:
            self._fail(f"slots are held by no task: {held}")
        if self._attempts_counted != self._attempts:
            self._fail(f"of {self._attempts} attempts, the tokens of {self._attempts_counted} were counted")

    def _check_task(self, task_id: str) -> None:
        state = self._world.brain.state
        task, watched = state.tasks.get(task_id), self.tasks.get(task_id)
        if watched is None or task is None:
            if (watched is None) != (task is None):
                self._fail(f"{task_id} is known to one side only")
            return
        if (task_id in state.queue) != (watched.state is QUEUED):
            self._fail(f"{task_id} is {watched.state}, and {'' if task_id in state.queue else 'not '}in the queue")
        state_of = FINISHED if watched.state is ENDING else watched.state
        if _STATES.get(task.state, FINISHED) is not state_of:
            self._fail(f"{task_id} is {watched.state}; the brain holds it to be {task.state}")
        if task.state is TaskState.RUNNING and (task.attempt is None or task.attempt.attempt_id not in state.attempts):
            self._fail(f"{task_id} runs nowhere")

    def _check_worker(self, worker_id: str) -> None:
        if worker_id in self._stopped:
            self._fail(f"a run is sent to {worker_id}, which was told to stop")
        link = self._world.links.get(worker_id)
        if link is None or not link.is_wanted:
            self._fail(f"a run is sent to {worker_id}, to which there is no link")
        elif link.process.state is WorkerState.STARTING:
            self._fail(f"a run is sent to {worker_id}, which is not loaded yet")

    def _check_suspects(self, effect: effects.StartRun) -> None:
        if effect.request.task_id not in self._suspects:
            return
        beside = {task.request.task_id for task in map(self._task_of.get, self.live_on(effect.worker_id)) if task}
        if others := beside & self._suspects - {effect.request.task_id}:
            self._fail(f"{effect.request.task_id} runs beside another suspect: {others}")

    def _is_no_suspect(self, task_id: str) -> None:
        self._aboard_once.discard(task_id)
        self._suspects.discard(task_id)

    def _over(self, attempt_id: str) -> None:
        if (task := self._task_of.pop(attempt_id, None)) is not None:
            task.unread.pop(attempt_id, None)
        if worker_id := self._worker_of.pop(attempt_id, None):
            self._live[worker_id].discard(attempt_id)

    def _known(self, task_id: str) -> Watched:
        task = self.tasks.get(task_id)
        if task is None:
            self._fail(f"{task_id} was never opened, or is forgotten")
        return task

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)


_NOTES: dict[type, Callable[[TaskRules, Any], None]] = {
    effects.OpenLog: TaskRules.opened,
    effects.StartRun: TaskRules.started,
    effects.CancelRun: TaskRules.cancelled,
    effects.AttemptLost: TaskRules.lost,
    effects.PersistStop: TaskRules.stop_kept,
    effects.PersistTerminal: TaskRules.ended,
    effects.AppendTerminal: TaskRules.ended,
    effects.TokensUsed: TaskRules.tokens_used,
    effects.ForgetTask: TaskRules.forgotten,
    effects.DetachWorker: TaskRules.detached,
    effects.ReleaseRuns: TaskRules.released,
    effects.StopWorker: TaskRules.stopped,
}
