"""Restores what the store has, at the start."""

from collections.abc import Callable, Mapping
from typing import Any

from llorch.errors import LlorchError
from orchestratord.core.events import RecordsFound, TaskRestored
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.calibration import Calibration
from orchestratord.core.facts.decision import DecisionRecord
from orchestratord.core.facts.model import ModelRecord, SourceFacts
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.sessions import Session
from orchestratord.core.facts.task import Task, TaskError, TaskState
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.learnt.rates import Rate
from orchestratord.core.lives import (
    app_changes,
    assignment_changes,
    decision_record,
    devices,
    learning,
    measuring,
    model_changes,
    session_life,
    sources,
    task_life,
    task_submission,
)
from orchestratord.core.state import BrainState

Restore = Callable[[BrainState, Any], None]
"""restore(state, record): the record is in force as it is, without checks or effects."""

_RESTORE: Mapping[type, Restore] = {
    ModelRecord: model_changes.restore_model,
    SourceFacts: sources.restore_source,
    App: app_changes.restore_app,
    Session: session_life.restore_session,
    Calibration: measuring.restore,
    Rate: learning.restore_rate,
    ReleasedDevice: devices.restore,
    Assignment: assignment_changes.restore,
    DecisionRecord: decision_record.restore,
}


def records_found(state: BrainState, event: RecordsFound) -> None:
    state.clock_began_ms = event.at_ms - state.now * 1000
    for record in event.records:
        _RESTORE[type(record)](state, record)


def task_restored(state: BrainState, event: TaskRestored) -> None:
    """A finished task is kept for the rest of its time; another one waits again, in the order of these events."""
    request = event.request
    task = Task(request, created_at=state.now - event.age_s, promise=event.promise)
    state.tasks[task.task_id] = task
    if request.request_id:
        state.by_request_id[(request.app, request.request_id)] = task.task_id
    if event.ended is None:
        _wait_again(state, task)
        return
    task.state, task.terminal, ended_ago_s = event.ended
    task.terminal_shown = True
    state.finished[task.task_id] = None
    left_s = state.config.task_retention_s - ended_ago_s
    state.timers.at(state.now + left_s, TimerKind.RETENTION, task.task_id)


def _wait_again(state: BrainState, task: Task) -> None:
    if task.promise is not None:
        state.nodes_awaited_until = state.now + state.config.no_device_grace_s
        state.timers.at(state.nodes_awaited_until, TimerKind.NODES_AWAITED, "")
    try:
        task_submission.readmit(state, task)
    except LlorchError as error:
        task_life.finish(state, task, TaskState.FAILED, TaskError(error.reason, error.message, field=error.field))
