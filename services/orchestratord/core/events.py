"""What the brain hears. Everything it knows comes through these."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llorch.errors import Reason
from llorch.gguf.facts import ModelFacts
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.fleet import Snapshot
from orchestratord.core.facts.model import ModelSpec, ModelState, Origin
from orchestratord.core.facts.records import Record
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import RunResult, TaskError, TaskRequest, TaskState, Terminal

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
    """`at_ms` is in milliseconds since 1970."""

    spec: ModelSpec
    origin: Origin
    provenance: str
    at_ms: int = 0


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


@dataclass(frozen=True, slots=True)
class AssignmentSet:
    """The draft names its targets as people write them; where they are is for the brain to find out.

    `at_ms` is in milliseconds since 1970.
    """

    draft: Assignment
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class AssignmentDeleted:
    assignment_id: str


@dataclass(frozen=True, slots=True)
class ModelLoadAsked:
    """`load_id` becomes the worker's id, if one is started. Without `places` it is chosen where.

    `anew`: a worker that is there already will not do.
    """

    model: str
    load_id: str
    places: tuple[Place, ...] = ()
    anew: bool = False


@dataclass(frozen=True, slots=True)
class ModelUnloadAsked:
    model: str
    even_if_busy: bool


@dataclass(frozen=True, slots=True)
class DeviceReleaseAsked:
    """`until_ms`, since 1970, and `duration_s` say the same, for the record and for the clock; None = until resumed."""

    node_id: str
    device_ids: tuple[str, ...]
    duration_s: float | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceResumeAsked:
    node_id: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoolDrainAsked:
    pool_id: str
    deadline_s: float = 30.0
    policy: DrainPolicy = DrainPolicy.REQUEUE
    after: AfterDrain = AfterDrain.STAY


@dataclass(frozen=True, slots=True)
class AppCreated:
    """An app gets a key, of which `app` has the hash."""

    app: App


@dataclass(frozen=True, slots=True)
class AppDefined:
    """The settings file has an app; its key is made by a call."""

    app: App


@dataclass(frozen=True, slots=True)
class AppUpdated:
    """All of the app but its key."""

    app: App


@dataclass(frozen=True, slots=True)
class AppDeleted:
    name: str


@dataclass(frozen=True, slots=True)
class SessionDeleted:
    app: str
    session_id: str


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
class StagedModelDeleted:
    """The node has no file of the source any more."""

    node_id: str
    source: str


@dataclass(frozen=True, slots=True)
class ModelVerified:
    """Nodes have read the file of a source again and found this digest."""

    source: str
    digest: str


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
    """`command_seq` is the command's number if nobody knows whether it arrived; None: it was refused."""

    worker_id: str
    reason: Reason
    message: str
    command_seq: int | None = None


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
class TaskRestored:
    """A durable task that an earlier life has accepted, `age_s` ago; `ended` is how and how long ago, if it did."""

    request: TaskRequest
    age_s: float
    ended: tuple[TaskState, Terminal, float] | None = None


@dataclass(frozen=True, slots=True)
class RecordsFound:
    """What an earlier life of the orchestrator kept; comes before anything else."""

    records: tuple[Record, ...]
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class RecordNotKept:
    """The store could not take a change: `lost` was in force until now (None = it was gone), `kept` is what it has."""

    kept: Record | None
    lost: Record | None


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
    | AppCreated
    | AppDefined
    | AppUpdated
    | AppDeleted
    | SessionDeleted
    | AssignmentSet
    | AssignmentDeleted
    | ModelLoadAsked
    | ModelUnloadAsked
    | DeviceReleaseAsked
    | DeviceResumeAsked
    | PoolDrainAsked
    | NodeRegistered
    | NodeReported
    | NodeForgotten
    | ModelStaged
    | StagedModelDeleted
    | ModelVerified
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
    | TaskRestored
    | RecordsFound
    | RecordNotKept
    | Tick
)
