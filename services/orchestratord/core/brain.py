"""The brain: events in, effects out."""

from collections.abc import Callable
from typing import Any

from orchestratord.core import ending, events, loading, model_changes, nodes, staging_news, submission
from orchestratord.core.admission import AdmissionQueue
from orchestratord.core.effects import Effect
from orchestratord.core.state import BrainConfig, BrainState
from orchestratord.core.timers import TimerKind

Handler = Callable[[BrainState, Any], None]


def _tick(state: BrainState, _: events.Tick) -> None:
    if state.last_tick is not None and state.now - state.last_tick > state.config.stall_s:
        nodes.renew_leases(state)
    state.last_tick = state.now
    for kind, subject in state.timers.due(state.now):
        _TIMERS[kind](state, subject)
    loading.reattach_overdue(state)
    nodes.check_leases(state)


_TIMERS: dict[TimerKind, Callable[[BrainState, str], None]] = {
    TimerKind.DEADLINE: ending.deadline_passed,
    TimerKind.READER_GRACE: ending.reader_grace_over,
    TimerKind.RETENTION: ending.forget,
}

_HANDLERS: dict[type, Handler] = {
    events.TaskSubmitted: submission.submit,
    events.TaskCancelled: ending.cancel,
    events.ReaderAttached: ending.reader_attached,
    events.ReaderLeft: ending.reader_left,
    events.ModelRegistered: model_changes.registered,
    events.ModelStateSet: model_changes.state_set,
    events.ModelDeleted: model_changes.deleted,
    events.WorkerStopAsked: loading.stop_asked,
    events.NodeRegistered: nodes.register,
    events.NodeReported: nodes.report,
    events.NodeForgotten: nodes.forget,
    events.ModelStaged: loading.staged,
    events.ModelComing: staging_news.coming,
    events.StagingFailed: loading.staging_failed,
    events.WorkerStartAccepted: loading.start_accepted,
    events.WorkerStartFailed: loading.start_failed,
    events.WorkerAttached: loading.worker_attached,
    events.WorkerSilent: loading.worker_silent,
    events.RunsFound: loading.runs_found,
    events.AttemptStarted: ending.attempt_started,
    events.AttemptFirstToken: ending.attempt_first_token,
    events.AttemptEnded: ending.attempt_ended,
    events.AttemptUnknown: ending.attempt_unknown,
    events.TaskNotKept: ending.not_kept,
    events.TerminalPersisted: ending.terminal_persisted,
    events.Tick: _tick,
}


class Brain:
    """A deterministic state machine: equal events at equal times give equal effects.

    A command that can't be carried out raises an error of `llorch.errors`, and nothing has changed. `new_id` makes
    ids for attempts and workers; a simulation hands in one that counts.
    """

    def __init__(self, config: BrainConfig, new_id: Callable[[str], str]) -> None:
        self.state = BrainState(config, new_id, AdmissionQueue(config.priorities, config.queue_capacity))

    def handle(self, event: events.Event, now: float) -> list[Effect]:
        """Take one event in. `now` is monotonic, in seconds, and never less than before."""
        self.state.now = now
        try:
            _HANDLERS[type(event)](self.state, event)
            while self.state.look_again:
                loading.look_again(self.state)
        finally:
            effects, self.state.outbox = self.state.outbox, []
        return effects
