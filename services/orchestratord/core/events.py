"""What the brain hears. Everything it knows comes through these."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llorch.errors import Reason
from orchestratord.core.catalog import ModelFacts, ModelSpec, ModelState, Origin
from orchestratord.core.fleet import Snapshot
from orchestratord.core.task import RunResult, TaskError, TaskRequest

# From clients. The brain may refuse these by raising an error of `llorch.errors`; then nothing has changed.


@dataclass(frozen=True, slots=True)
class TaskSubmitted:
    request: TaskRequest


@dataclass(frozen=True, slots=True)
class TaskCancelled:
    task_id: str


@dataclass(frozen=True, slots=True)
class ReaderAttached:
    task_id: str


@dataclass(frozen=True, slots=True)
class ReaderLeft:
    task_id: str


@dataclass(frozen=True, slots=True)
class ModelRegistered:
    spec: ModelSpec
    origin: Origin
    provenance: str


@dataclass(frozen=True, slots=True)
class ModelStateSet:
    model: str
    state: ModelState


@dataclass(frozen=True, slots=True)
class ModelDeleted:
    model: str


@dataclass(frozen=True, slots=True)
class WorkerStopAsked:
    worker_id: str
    even_if_busy: bool


# From nodes.


@dataclass(frozen=True, slots=True)
class NodeRegistered:
    """`instance_id` is another one after the pool manager was restarted."""

    node_id: str
    session: str
    instance_id: str
    address: str
    version: str
    snapshot: Snapshot
    applied_command_seq: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeReported:
    """`applied_command_seq`: the report knows of every command up to this one."""

    node_id: str
    session: str
    applied_command_seq: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    node_id: str


@dataclass(frozen=True, slots=True)
class ModelStaged:
    """The file of a source lies ready on a node."""

    node_id: str
    source: str
    size_mib: int
    facts: ModelFacts | None = None


@dataclass(frozen=True, slots=True)
class ModelComing:
    """The file of a source is on its way to a node, and takes its time. `total_mib` is None if nobody knows it."""

    node_id: str
    source: str
    done_mib: int
    total_mib: int | None
    mib_per_second: float


@dataclass(frozen=True, slots=True)
class StagingFailed:
    node_id: str
    source: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class WorkerStartAccepted:
    worker_id: str
    command_seq: int


@dataclass(frozen=True, slots=True)
class WorkerStartFailed:
    worker_id: str
    reason: Reason
    message: str


# From the links to workers.


@dataclass(frozen=True, slots=True)
class WorkerAttached:
    """The stream of step frames runs (again)."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class WorkerSilent:
    """The stream of step frames broke, or was silent for its lease; the link tries to attach again."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class RunsFound:
    """Runs that a worker holds, some of them perhaps of an earlier orchestrator."""

    worker_id: str
    attempt_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    attempt_id: str


@dataclass(frozen=True, slots=True)
class AttemptFirstToken:
    attempt_id: str


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    attempt_id: str
    outcome: RunResult | TaskError


@dataclass(frozen=True, slots=True)
class AttemptUnknown:
    """The worker does not know the attempt: it never arrived, or is forgotten."""

    attempt_id: str


# From the store and the clock.


@dataclass(frozen=True, slots=True)
class TaskNotKept:
    """The store could not take an accepted task; whoever submitted it is told so."""

    task_id: str
    message: str


@dataclass(frozen=True, slots=True)
class TerminalPersisted:
    task_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Comes several times a second; what is due happens."""


Event = (
    TaskSubmitted
    | TaskCancelled
    | ReaderAttached
    | ReaderLeft
    | ModelRegistered
    | ModelStateSet
    | ModelDeleted
    | WorkerStopAsked
    | NodeRegistered
    | NodeReported
    | NodeForgotten
    | ModelStaged
    | ModelComing
    | StagingFailed
    | WorkerStartAccepted
    | WorkerStartFailed
    | WorkerAttached
    | WorkerSilent
    | RunsFound
    | AttemptStarted
    | AttemptFirstToken
    | AttemptEnded
    | AttemptUnknown
    | TaskNotKept
    | TerminalPersisted
    | Tick
)
