"""The brain: events in; effects, and answers to commands, out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestratord.core import events
from orchestratord.core.effects import Effect
from orchestratord.core.facts.admission import AdmissionQueue
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import (
    app_changes,
    assignment_changes,
    attempt_life,
    attempt_loss,
    deadlines,
    devices,
    found_runs,
    giving_way,
    model_changes,
    model_loading,
    model_unloading,
    nodes,
    pools,
    proposals,
    restoring,
    session_life,
    sources,
    staging_news,
    task_life,
    task_submission,
    token_usage,
    worker_life,
)
from orchestratord.core.state import BrainConfig, BrainState

Handler = Callable[[BrainState, Any], Any]
"""Takes an event in, and returns the answer to a command; None to everything else."""


@dataclass(frozen=True, slots=True)
class Handled:
    """The result of an event. `answer` is of the type that the command names."""

    effects: list[Effect]
    answer: Any


def _tick(state: BrainState, _: events.Tick) -> None:
    if state.last_tick is not None and state.now - state.last_tick > state.config.stall_s:
        nodes.renew_leases(state)
    state.last_tick = state.now
    for kind, subject in state.timers.due(state.now):
        _TIMERS[kind](state, subject)
    model_loading.go_on_looking(state)
    worker_life.reattach_overdue(state)
    nodes.check_leases(state)


_TIMERS: dict[TimerKind, Callable[[BrainState, str], None]] = {
    TimerKind.DEADLINE: deadlines.deadline_passed,
    TimerKind.HOPE: deadlines.hope_over,
    TimerKind.LATEST_START: deadlines.latest_start_passed,
    TimerKind.SESSION: session_life.time_over,
    TimerKind.READER_GRACE: task_life.reader_grace_over,
    TimerKind.STOP: task_life.stop_wait_over,
    TimerKind.RETENTION: task_life.forget,
    TimerKind.IDLE: model_unloading.idle_check,
    TimerKind.RESIDENCY: worker_life.residency_over,
    TimerKind.EXPECTED: worker_life.expected_no_more,
    TimerKind.LOOK_AGAIN: model_loading.look_is_due,
    TimerKind.MEMORY_BACK: worker_life.memory_wait_over,
    TimerKind.RETRY_LOAD: model_loading.retry,
    TimerKind.FORGET_FAILURE: model_loading.forget_failure,
    TimerKind.NODE_GRACE: nodes.grace_over,
    TimerKind.RECOVERY_OVER: restoring.recovery_over,
    TimerKind.RUNS_FOUND: found_runs.time_over,
    TimerKind.PRESSURE: devices.relieve,
    TimerKind.RESUME_DEVICE: devices.time_is_over,
    TimerKind.DRAIN_DEADLINE: pools.deadline_passed,
}

HANDLERS: dict[type, Handler] = {
    events.TaskSubmitted: task_submission.submit,
    events.TaskCancelled: task_life.cancel,
    events.ReaderAttached: task_life.reader_attached,
    events.ReaderLeft: task_life.reader_left,
    events.AssignmentSet: assignment_changes.assignment_set,
    events.AssignmentDeleted: assignment_changes.assignment_deleted,
    events.ModelRegistered: model_changes.registered,
    events.ModelStateSet: model_changes.state_set,
    events.ModelDeleted: model_changes.deleted,
    events.WorkerStopAsked: model_unloading.stop_asked,
    events.ModelLoadAsked: model_loading.load_asked,
    events.ModelUnloadAsked: model_unloading.unload_asked,
    events.DeviceReleaseAsked: devices.release_asked,
    events.DeviceResumeAsked: devices.resume_asked,
    events.PoolDrainAsked: pools.drain_asked,
    events.StagedModelDeleted: pools.staged_model_deleted,
    events.AppCreated: app_changes.created,
    events.AppDefined: app_changes.defined,
    events.AppUpdated: app_changes.updated,
    events.AppDeleted: app_changes.deleted,
    events.SessionDeleted: session_life.deleted,
    events.NodeRegistered: nodes.register,
    events.NodeReported: nodes.report,
    events.NodeTroubled: nodes.troubled,
    events.NodeForgotten: nodes.forget,
    events.ModelStaged: model_loading.staged,
    events.ModelVerified: sources.verified,
    events.ModelComing: staging_news.coming,
    events.StagingFailed: model_loading.staging_failed,
    events.WorkerStartAccepted: model_loading.start_accepted,
    events.WorkerStartFailed: worker_life.start_failed,
    events.WorkerAttached: worker_life.attached,
    events.WorkerSilent: worker_life.silent,
    events.RunsFound: found_runs.runs_found,
    events.AttemptStarted: attempt_life.started,
    events.AttemptFirstToken: attempt_life.first_token,
    events.AttemptDecided: attempt_loss.decided,
    events.OutputWentOn: attempt_loss.output_went_on,
    events.AttemptEnded: attempt_life.ended,
    events.LostOutputCounted: token_usage.lost_output_counted,
    events.AttemptUnknown: attempt_life.unknown,
    events.TaskKept: task_submission.kept,
    events.TaskNotKept: task_life.not_kept,
    events.OutputTooLarge: task_life.output_too_large,
    events.OutputsTooLarge: task_life.outputs_too_large,
    events.TerminalPersisted: task_life.terminal_persisted,
    events.StopsCutShort: task_life.stops_cut_short,
    events.TaskRestored: restoring.task_restored,
    events.RecordsFound: restoring.records_found,
    events.RecoveryBegan: restoring.recovery_began,
    events.ChangeKept: proposals.kept,
    events.ChangeNotKept: proposals.not_kept,
    events.Tick: _tick,
}


def _queue_of(config: BrainConfig) -> AdmissionQueue:
    return AdmissionQueue(
        config.priorities, config.queue_capacity, config.queue_policy, config.max_starvation_s, config.queue_bytes
    )


class Brain:
    """A deterministic state machine: equal events at equal times give equal effects and answers.

    A command that can't be carried out raises an error of `llorch.errors`, and nothing has changed. `new_id` makes
    ids for attempts and workers; a simulation hands in one that counts.
    """

    def __init__(self, config: BrainConfig, new_id: Callable[[str], str]) -> None:
        self.state = BrainState(config, new_id, _queue_of(config))

    def handle(self, event: events.Event, now: float) -> Handled:
        """Take one event in. `now` is monotonic, in seconds, and never less than before."""
        self.state.now = self.state.queue.now = now
        try:
            answer = HANDLERS[type(event)](self.state, event)
            while self.state.look_again or self.state.crowded:
                if self.state.look_again:
                    model_loading.look_again(self.state)
                giving_way.give_slots(self.state)
        finally:
            effects, self.state.outbox = self.state.outbox, []
        return Handled(effects, answer)
