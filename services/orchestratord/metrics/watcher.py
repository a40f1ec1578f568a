"""Counts the brain's events and decisions from outside, as an observer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llorch.errors import LlorchError, Reason
from orchestratord.core import effects, events
from orchestratord.core.facts.decision import DecisionRecord
from orchestratord.core.facts.task import TaskEnd, TaskError, TaskState, Terminal
from orchestratord.core.state import BrainState
from orchestratord.metrics.tallies import Bounded, Tallies

ADMITTED = "admitted"
NO_APP = "none"
UNKNOWN = "unknown"

_NEVER_ADMITTED = frozenset({Reason.STORE_FAILED, Reason.STORE_FULL})
"""Why the store did not take a durable task; its submission was refused."""

_DEADLINE_OUTCOMES = {TaskState.COMPLETED: "met", TaskState.EXPIRED: "missed"}


@dataclass(slots=True)
class _Loading:
    model: str
    since: float
    stopped: bool = False


class Watcher:
    """An observer of the brain's owner."""

    def __init__(self, state: BrainState) -> None:
        self.tallies = Tallies()
        self._state = state
        self._app = Bounded()
        self._model = Bounded()
        self._loading: dict[str, _Loading] = {}
        self._of_effect: Mapping[type, Callable[[Any], None]] = {
            effects.AppendTerminal: lambda effect: self._task_ended(effect.task_id, effect.terminal),
            effects.PersistRecord: self._recorded,
            effects.AttemptLost: self._attempt_lost,
            effects.RunGaveWay: self._gave_way,
            effects.TokensUsed: self._used,
            effects.PredictionJudged: self._prediction_judged,
            effects.OnTimeJudged: self._chance_judged,
            effects.StartWorker: self._load_began,
            effects.AttachWorker: self._load_ready,
            effects.StopWorker: self._stopped,
            effects.DetachWorker: self._worker_gone,
        }

    def observe(
        self, event: events.Event, results: Sequence[effects.Effect], refusal: LlorchError | None, _asked: bool
    ) -> None:
        self.tallies.events.add()
        if isinstance(event, events.TaskSubmitted):
            self._submitted(event, results, refusal)
        elif isinstance(event, (events.TaskKept, events.TaskNotKept)):
            self._answered(event)
        for effect in results:
            count = self._of_effect.get(type(effect))
            if count is not None:
                count(effect)

    def _submitted(
        self, event: events.TaskSubmitted, results: Sequence[effects.Effect], refusal: LlorchError | None
    ) -> None:
        """A repeated request is no second admission; a task that drops another is admitted itself. A durable one is
        admitted once the store has it.
        """
        if refusal is not None:
            asked = self._state.apps.priority_of(event.request.app, event.request.priority)
            self.tallies.admissions.add(self._priority(asked), refusal.reason.lower())
        for effect in results:
            if isinstance(effect, effects.OpenLog) and not effect.request.durable:
                self.tallies.admissions.add(self._priority(effect.request.priority), ADMITTED)

    def _answered(self, event: events.TaskKept | events.TaskNotKept) -> None:
        task = self._state.tasks.get(event.task_id)
        if task is not None:
            outcome = ADMITTED if isinstance(event, events.TaskKept) else event.reason.lower()
            self.tallies.admissions.add(self._priority(task.request.priority), outcome)

    def _task_ended(self, task_id: str, terminal: Terminal) -> None:
        task = self._state.tasks.get(task_id)
        if task is None or (isinstance(terminal, TaskError) and terminal.reason in _NEVER_ADMITTED):
            return
        priority = self._priority(task.request.priority)
        self.tallies.ended.add(priority, task.state.lower())
        if task.request.deadline_s is not None and (outcome := _DEADLINE_OUTCOMES.get(task.state)):
            self.tallies.deadlines.add(priority, outcome)
            self.tallies.recent_deadlines.add((priority, outcome), 1, self._state.now)
        if isinstance(terminal, TaskEnd):
            self.tallies.queue_wait.observe(terminal.queue_ms / 1000, priority)
            if terminal.first_token_ms:
                self.tallies.first_token.observe(terminal.first_token_ms / 1000, priority)

    def _used(self, effect: effects.TokensUsed) -> None:
        model = self._model(effect.model)
        for direction, amount in (("in", effect.tokens_in), ("out", effect.tokens_out), ("cached", effect.cached)):
            self.tallies.tokens.add(model, direction, amount=amount)
        place = (self._priority(effect.priority), self._app(effect.app or NO_APP))
        self.tallies.recent_tokens.add(place, effect.tokens_in + effect.tokens_out, self._state.now)

    def _recorded(self, effect: effects.PersistRecord) -> None:
        record = effect.after
        if effect.before is None and isinstance(record, DecisionRecord):
            pinned, fallback = _yes_or_no(record.pinned), _yes_or_no(record.fallback_used)
            self.tallies.decisions.add(record.outcome.value, pinned, fallback)
            self.tallies.considered.observe(record.considered)

    def _prediction_judged(self, effect: effects.PredictionJudged) -> None:
        """Relative to the actual value; one below a millisecond is judged as a millisecond."""
        error = abs(effect.predicted_ms - effect.actual_ms) / max(1.0, effect.actual_ms)
        self.tallies.prediction_error.observe(error, effect.kind)

    def _chance_judged(self, effect: effects.OnTimeJudged) -> None:
        self.tallies.recent_chances.add("count", 1, self._state.now)
        self.tallies.recent_chances.add("squared_error", (effect.probability - effect.met) ** 2, self._state.now)

    def _load_began(self, effect: effects.StartWorker) -> None:
        self._loading[effect.spec.worker_id] = _Loading(self._model(effect.spec.model), self._state.now)

    def _load_ready(self, effect: effects.AttachWorker) -> None:
        """A worker that was found running has not been loaded now."""
        loading = self._loading.pop(effect.worker_id, None)
        if loading is not None:
            self.tallies.loads.add(loading.model, "ready")
            self.tallies.load_seconds.observe(self._state.now - loading.since)

    def _attempt_lost(self, effect: effects.AttemptLost) -> None:
        self.tallies.attempts_lost.add(self._model(effect.model), effect.loss.value)

    def _gave_way(self, effect: effects.RunGaveWay) -> None:
        self.tallies.gave_way.add(self._model(effect.model), effect.priority)

    def _stopped(self, effect: effects.StopWorker) -> None:
        self.tallies.stops.add(effect.why.value)
        if loading := self._loading.get(effect.worker_id):
            loading.stopped = True

    def _worker_gone(self, effect: effects.DetachWorker) -> None:
        loading = self._loading.pop(effect.worker_id, None)
        if loading is not None:
            self.tallies.loads.add(loading.model, "stopped" if loading.stopped else "failed")

    def _priority(self, priority: str) -> str:
        return priority if priority in self._state.config.priorities else UNKNOWN


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
