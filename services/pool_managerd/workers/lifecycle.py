"""How a worker process lives: every legal transition, in one table, without I/O. Nothing is restarted here."""

from enum import StrEnum

from llorch.worker_state import WorkerState


class WorkerEvent(StrEnum):
    BECAME_READY = "became_ready"
    DRAIN_ASKED = "drain_asked"
    STOP_ASKED = "stop_asked"
    ENDED_AS_TOLD = "ended_as_told"
    ENDED_BROKEN = "ended_broken"  # a crash, a failed load, a load deadline


class IllegalTransition(Exception):
    """A bug in the caller: it must ask `may` first, or know."""


_TABLE: dict[WorkerState, dict[WorkerEvent, WorkerState]] = {
    WorkerState.STARTING: {
        WorkerEvent.BECAME_READY: WorkerState.READY,
        WorkerEvent.STOP_ASKED: WorkerState.STOPPING,
        WorkerEvent.ENDED_BROKEN: WorkerState.FAILED,
    },
    WorkerState.READY: {
        WorkerEvent.DRAIN_ASKED: WorkerState.DRAINING,
        WorkerEvent.STOP_ASKED: WorkerState.STOPPING,
        WorkerEvent.ENDED_BROKEN: WorkerState.FAILED,
    },
    WorkerState.DRAINING: {
        WorkerEvent.STOP_ASKED: WorkerState.STOPPING,
        WorkerEvent.ENDED_BROKEN: WorkerState.FAILED,
    },
    WorkerState.STOPPING: {
        WorkerEvent.ENDED_AS_TOLD: WorkerState.EXITED,
        WorkerEvent.ENDED_BROKEN: WorkerState.FAILED,
    },
    WorkerState.EXITED: {},
    WorkerState.FAILED: {},
}


def may(state: WorkerState, event: WorkerEvent) -> bool:
    return event in _TABLE[state]


def after(state: WorkerState, event: WorkerEvent) -> WorkerState:
    try:
        return _TABLE[state][event]
    except KeyError:
        raise IllegalTransition(f"{event} can't happen to a worker that is {state}") from None
