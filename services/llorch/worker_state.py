"""The states of a worker. Pure.

STARTING   the process was asked for, or runs and loads its model
READY      it reported so itself; it takes runs
DRAINING   it finishes what it has and takes nothing new
STOPPING   told to end; its memory may still be held
EXITED     ended as told, and its memory is back
FAILED     ended by itself, never became ready, or was ended because of a failure

EXITED and FAILED mean that no process is there any more. Nothing leads out of them: ids are single-use.
"""

from enum import StrEnum


class WorkerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    EXITED = "exited"
    FAILED = "failed"


TERMINAL = frozenset({WorkerState.EXITED, WorkerState.FAILED})
