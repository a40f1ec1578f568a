"""Restores what the store has, at the start."""

from collections.abc import Callable, Mapping
from typing import Any

from llorch.errors import Reason
from orchestratord.core.events import RecordsFound, RecoveryBegan, TaskRestored
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.calibration import Calibration
from orchestratord.core.facts.decision import DecisionRecord
from orchestratord.core.facts.drains import Drain
from orchestratord.core.facts.known_node import KnownNode
from orchestratord.core.facts.model import ModelRecord, SourceFacts
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.sessions import Session
from orchestratord.core.facts.task import Task, TaskError
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.learnt.rates import Rate
from orchestratord.core.lives import (
    app_changes,
    assignment_changes,
    decision_record,
    devices,
    forgetting,
    found_runs,
    known_nodes,
    learning,
    measuring,
    model_changes,
    offered_models,
    pools,
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
    KnownNode: known_nodes.restore,
    Drain: pools.restore,
    DecisionRecord: decision_record.restore,
}


def records_found(state: BrainState, event: RecordsFound) -> None:
    state.clock_began_ms = event.at_ms - state.now * 1000
    for record in event.records:
        _RESTORE[type(record)](state, record)


def recovery_began(state: BrainState, _: RecoveryBegan) -> None:
    """Models of the nodes' own folders are in the catalog again, behind what packages and the settings file have."""
    state.recovering_until = state.now + state.config.recovery_window_s
    state.settles_at = state.now + state.config.node_lease_s
    state.knew_no_node = not state.fleet.nodes
    found_runs.lose_sight(state)
    state.timers.at(state.recovering_until, TimerKind.RECOVERY_OVER, "")
    for node in list(state.fleet.nodes.values()):
        offered_models.take_in(state, node)


def recovery_over(state: BrainState, _: str) -> None:
    """Tasks of before the start stop waiting for models that no node has brought since."""
    for name in list(state.queue.models()):
        if state.catalog.find(name) is None:
            task_life.fail_waiting(state, name, TaskError(Reason.MODEL_NOT_FOUND, found_runs.nowhere(name)))
    forgetting.unclaimed_files(state)
    state.look_again = True


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
    task_life.keep_finished(state, task, state.config.task_retention_s - ended_ago_s)


def _wait_again(state: BrainState, task: Task) -> None:
    """Also where its model is not in the catalog: the node may register that has it."""
    task_submission.readmit(state, task, held=state.lost_sight_until is not None)
    found_runs.restored(state, task)
    state.look_by(state.now)
    if state.lost_sight_until is None:
        found_runs.fail_without_model(state, task)
