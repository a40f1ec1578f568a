"""What the orchestrator gives a run to keep: the worker reads none of it, and tells it to an orchestrator that finds
the run at its start. Pure data.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskAttempt:
    """Which try of which task a run is; `number` counts from 1. The prefix is what the task's log had by then."""

    task_id: str
    number: int
    log_epoch: int
    prefix_entries: int
    prefix_digest: int


@dataclass(frozen=True, slots=True)
class Keepsake:
    """`task_record` and `spec`, the serialized RunSpec without its remaining time, are opaque here. `attempt` is None
    where the orchestrator is of an earlier release.
    """

    task_record: bytes = b""
    attempt: TaskAttempt | None = None
    spec: bytes = b""


NOTHING = Keepsake()
