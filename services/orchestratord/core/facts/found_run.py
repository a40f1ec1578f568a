"""A run that a worker holds, as the link to it finds it. Pure data."""

from dataclasses import dataclass

from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.task import TaskRequest


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What an orchestrator gives a worker to keep with a run, for one that finds it at its start.

    `accepted_at_ms` is in milliseconds since 1970. The request is whole.
    """

    request: TaskRequest
    accepted_at_ms: int
    promise: Promise | None = None


@dataclass(frozen=True, slots=True)
class FoundRun:
    """`number` is that of the attempt, `entries` how long its log is, the prefix included, `log_epoch` that of the
    task's log. `record` is None where the run keeps none that this orchestrator can read. `age_s` is how long the
    worker has had it, `output_age_s` how long it has had entries.
    """

    attempt_id: str
    record: TaskRecord | None = None
    number: int = 1
    log_epoch: int = 1
    entries: int = 0
    age_s: float = 0.0
    output_age_s: float = 0.0
