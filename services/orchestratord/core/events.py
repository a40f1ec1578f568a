"""The brain's inputs. Everything it knows comes through these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from llorch.errors import Reason
from llorch.gguf.facts import ModelFacts
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.fleet import Snapshot
from orchestratord.core.facts.found_run import FoundRun
from orchestratord.core.facts.model import Model, ModelSpec, ModelState, Origin
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import Record
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import (
    CancelOutcome,
    RunResult,
    Task,
    TaskError,
    TaskRequest,
    TaskState,
    Terminal,
)
from orchestratord.core.facts.warmth import NO_HEAD, PromptHead

Answer_co = TypeVar("Answer_co", covariant=True)


class Command(Generic[Answer_co]):
    """An event that a caller asks for. `Answer_co` is the type of the answer, which holds when the event is handled.

    The brain may refuse a command by raising an error of `llorch.errors`; then nothing has changed.
    """

    __slots__ = ()


# From clients.


@dataclass(frozen=True, slots=True)
class TaskSubmitted(Command[Task]):
    """`head` is the beginning of its prompt, by which workers are found that have evaluated one like it."""

    request: TaskRequest
    head: PromptHead = NO_HEAD


@dataclass(frozen=True, slots=True)
class TaskCancelled(Command[CancelOutcome]):
    """An app can't cancel tasks of other apps: to it they do not exist; without an app, every task is found."""

    task_id: str
    app: str = ""


@dataclass(frozen=True, slots=True)
class ReaderAttached(Command[None]):
    task_id: str


@dataclass(frozen=True, slots=True)
class ReaderLeft:
    """`may_return`: its line broke, and it looks for the orchestrator."""

    task_id: str
    may_return: bool = False


@dataclass(frozen=True, slots=True)
class ModelRegistered(Command[Model]):
    """Answered with the merged model. `at_ms` is in milliseconds since 1970; 0 = now, by the brain's clock."""

    spec: ModelSpec
    origin: Origin
    provenance: str
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class ModelStateSet(Command[Model]):
    model: str
    state: ModelState


@dataclass(frozen=True, slots=True)
class ModelDeleted(Command[None]):
    model: str


@dataclass(frozen=True, slots=True)
class WorkerStopAsked(Command[None]):
    worker_id: str
    even_if_busy: bool


@dataclass(frozen=True, slots=True)
class AssignmentSet(Command[Assignment]):
    """The draft names its targets as people write them; the brain resolves them.

    Answered with the rule as it was set. `at_ms` is in milliseconds since 1970.
    """

    draft: Assignment
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class AssignmentDeleted(Command[None]):
    assignment_id: str


@dataclass(frozen=True, slots=True)
class ModelLoadAsked(Command[str]):
    """`load_id` becomes the worker's id, if one is started. Without `places` the brain chooses where.

    `anew`: a worker that is there already will not do. Answered with the id of the worker that has the model or will.
    """

    model: str
    load_id: str
    places: tuple[Place, ...] = ()
    anew: bool = False


@dataclass(frozen=True, slots=True)
class ModelUnloadAsked(Command[list[str]]):
    """Answered with the ids of the workers that go."""

    model: str
    even_if_busy: bool


@dataclass(frozen=True, slots=True)
class DeviceReleaseAsked(Command[list[str]]):
    """`until_ms`, since 1970, and `duration_s` say the same, for the record and for the clock; None = until resumed.

    Answered with the ids of the workers that have to leave first.
    """

    node_id: str
    device_ids: tuple[str, ...]
    duration_s: float | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceResumeAsked(Command[None]):
    node_id: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoolDrainAsked(Command[None]):
    pool_id: str
    deadline_s: float = 30.0
    policy: DrainPolicy = DrainPolicy.REQUEUE
    after: AfterDrain = AfterDrain.STAY


@dataclass(frozen=True, slots=True)
class AppCreated(Command[App]):
    """An app gets a key, of which `app` has the hash."""

    app: App


@dataclass(frozen=True, slots=True)
class AppDefined(Command[App]):
    """The settings file has an app; its key is made by a call."""

    app: App


@dataclass(frozen=True, slots=True)
class AppUpdated(Command[App]):
    """All of the app but its key."""

    app: App


@dataclass(frozen=True, slots=True)
class AppDeleted(Command[None]):
    name: str


@dataclass(frozen=True, slots=True)
class SessionDeleted(Command[None]):
    app: str
    session_id: str


# From nodes.


@dataclass(frozen=True, slots=True)
class NodeRegistered(Command[None]):
    """`instance_id` is another one after the pool manager was restarted; `host_id` stays, whatever the host is called.
    `boot_id` is another one after the machine was started again. Both are empty where the pool manager tells none.
    """

    node_id: str
    session: str
    instance_id: str
    address: str
    version: str
    snapshot: Snapshot
    applied_command_seq: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    host_id: str = ""
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class NodeTroubled:
    """The node does not take this orchestrator, and its operator has to do something: `trouble` says what."""

    node_id: str
    trouble: str


@dataclass(frozen=True, slots=True)
class NodeReported(Command[None]):
    """`applied_command_seq`: the report was made after the node had applied every command up to this one."""

    node_id: str
    session: str
    applied_command_seq: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class NodeForgotten(Command[None]):
    node_id: str


@dataclass(frozen=True, slots=True)
class ModelStaged:
    """The file of a source is complete on a node."""

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
class ModelVerified(Command[str]):
    """Nodes have read the file of a source again and found this digest. Answered with the digest that counts."""

    source: str
    digest: str


@dataclass(frozen=True, slots=True)
class ModelComing:
    """A node is downloading the file of a source. `total_mib` is None if its size is not known."""

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
    """`command_seq` is the command's number if the node may have received it; None: the node refused the command."""

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
    """The stream of step frames broke, or was silent for its lease; the link tries to attach again.

    `refused` is (reason, message) where the worker answered, and does not take this orchestrator.
    """

    worker_id: str
    refused: tuple[Reason, str] | None = None


@dataclass(frozen=True, slots=True)
class RunsFound:
    """Runs that a worker holds, some of them perhaps of an earlier orchestrator."""

    worker_id: str
    runs: tuple[FoundRun, ...]


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """`tokens_in` are those of the prompt, `cached_tokens` the part of them that need not be evaluated."""

    attempt_id: str
    tokens_in: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class AttemptFirstToken:
    """The first output of the attempt is in its task's log."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class AttemptDecided:
    """Several attempts might have brought the next output of the task; this one did, and the others can't any more."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class OutputWentOn:
    """The task's log is as long as was watched for."""

    task_id: str


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """`used` is what a run that failed had used until then; None: it did not begin."""

    attempt_id: str
    outcome: RunResult | TaskError
    used: RunResult | None = None


@dataclass(frozen=True, slots=True)
class LostOutputCounted:
    """How many tokens a lost attempt had put into its task's log."""

    attempt_id: str
    tokens_out: int


@dataclass(frozen=True, slots=True)
class AttemptUnknown:
    """The worker does not know the attempt: it never arrived, or is forgotten."""

    attempt_id: str


# From the store and the clock.


@dataclass(frozen=True, slots=True)
class TaskKept:
    """The store has an accepted task: from now on it may have models loaded, and others leave for it."""

    task_id: str


@dataclass(frozen=True, slots=True)
class TaskNotKept:
    """The store could not take an accepted task; the client that submitted it gets the error."""

    task_id: str
    message: str
    reason: Reason = Reason.STORE_FAILED


@dataclass(frozen=True, slots=True)
class OutputTooLarge:
    """The output of a task has become larger than `most_bytes`, which is what is kept of one."""

    task_id: str
    most_bytes: int


@dataclass(frozen=True, slots=True)
class OutputsTooLarge:
    """Outputs and finished tasks take more memory than they may. Told again until they do not.

    `largest` is the task with the largest output of those that have not ended; empty if all have.
    """

    largest: str


@dataclass(frozen=True, slots=True)
class TerminalPersisted:
    task_id: str


@dataclass(frozen=True, slots=True)
class TaskRestored:
    """A durable task that an earlier orchestrator process accepted, `age_s` ago; `ended` is how and how long ago.

    `promise` is what it made when it began, if it is deterministic.
    """

    request: TaskRequest
    age_s: float
    ended: tuple[TaskState, Terminal, float] | None = None
    promise: Promise | None = None


@dataclass(frozen=True, slots=True)
class RecordsFound:
    """What earlier orchestrator processes stored; comes before any other event."""

    records: tuple[Record, ...]
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class RecoveryBegan:
    """After RecordsFound, and what packages and the settings file bring: the nodes that were known are awaited now.

    The tasks of before come next, as TaskRestored.
    """


@dataclass(frozen=True, slots=True)
class ChangeKept:
    """The store has the change that a caller asked for (`PersistChange`)."""


@dataclass(frozen=True, slots=True)
class ChangeNotKept:
    """The store could not take the change: nothing is changed, and the caller gets the error."""


@dataclass(frozen=True, slots=True)
class StopsCutShort:
    """The orchestrator ends: no task that was ended early waits any longer for what its worker says of it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Comes several times a second; the brain does what is due."""


Event = (
    Command[Any]
    | ReaderLeft
    | ModelStaged
    | StagedModelDeleted
    | ModelComing
    | StagingFailed
    | WorkerStartAccepted
    | WorkerStartFailed
    | WorkerAttached
    | WorkerSilent
    | NodeTroubled
    | RunsFound
    | AttemptStarted
    | AttemptFirstToken
    | AttemptDecided
    | OutputWentOn
    | AttemptEnded
    | LostOutputCounted
    | AttemptUnknown
    | TaskKept
    | TaskNotKept
    | OutputTooLarge
    | OutputsTooLarge
    | TerminalPersisted
    | TaskRestored
    | RecordsFound
    | RecoveryBegan
    | ChangeKept
    | ChangeNotKept
    | StopsCutShort
    | Tick
)
