"""What the brain wants done. The shell does it, and reports the result as an event."""

from dataclasses import dataclass

from llorch.worker_spec import WorkerSpec
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.fleet import Device, Endpoint, EngineFacts, Leaving
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.task import TaskRequest, Terminal


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A task was admitted: its log begins."""

    request: TaskRequest
    queue_position: int
    predicted_start_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OpenFoundLog:
    """A task of before the start was found on a worker, and the store does not have it: its log begins.
    `accepted_at_ms` is in milliseconds since 1970.
    """

    request: TaskRequest
    accepted_at_ms: int


@dataclass(frozen=True, slots=True)
class StartPredicted:
    """Of a task whose log began before it was known."""

    task_id: str
    predicted_start_ms: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an attempt runs; every reader is told, with marks for CPU and simulation. `lost` is why the attempt before
    was lost, if it was.
    """

    attempt: int
    worker_id: str
    node_id: str
    devices: tuple[Device, ...]
    engine: EngineFacts
    lost: Loss | None = None


@dataclass(frozen=True, slots=True)
class AnnouncePlacement:
    task_id: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Narrate:
    """A sentence for the people who read the task's stream."""

    task_id: str
    text: str


@dataclass(frozen=True, slots=True)
class WarnOfNode:
    """A sentence for the operator: a node claims what another one has, or has another name now. Told once per link."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True)
class AppendTerminal:
    """The one terminal of a task becomes visible. `request` is what is kept of it from now on, by all who keep it."""

    request: TaskRequest
    terminal: Terminal

    @property
    def task_id(self) -> str:
        return self.request.task_id


@dataclass(frozen=True, slots=True)
class PersistTask:
    """Answered by TaskKept or TaskNotKept."""

    request: TaskRequest


@dataclass(frozen=True, slots=True)
class PersistPromise:
    """What a durable task holds on to from now on; None if nothing was shown of what it had promised."""

    task_id: str
    promise: Promise | None


@dataclass(frozen=True, slots=True)
class PersistStop:
    """A durable task was ended early: its end as far as it is known, so that it does not run again after a restart. It
    is shown to no reader; a PersistTerminal follows, and takes its place.
    """

    task_id: str
    so_far: Terminal


@dataclass(frozen=True, slots=True)
class PersistTerminal:
    """Answered by TerminalPersisted."""

    task_id: str
    terminal: Terminal


@dataclass(frozen=True, slots=True)
class PersistRecord:
    """A record is new (no `before`), changed, or gone (no `after`): that is so, and no caller waits for the store."""

    before: Record | None
    after: Record | None


@dataclass(frozen=True, slots=True)
class PersistChange:
    """What a caller wants changed: all of it or nothing. It is so, with all that follows, once the store has it.

    Answered by ChangeKept or ChangeNotKept; until then there is no second one.
    """

    changes: tuple[RecordChange, ...]


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """An attempt is over, however, and this is what it took. `cached` of the prompt's tokens were not evaluated."""

    model: str
    priority: str
    app: str
    tokens_in: int
    tokens_out: int
    cached: int


@dataclass(frozen=True, slots=True)
class PredictionJudged:
    """A predicted value is known now, and can be compared. `kind` is what was predicted, e.g. "start"."""

    kind: str
    predicted_ms: float
    actual_ms: float


@dataclass(frozen=True, slots=True)
class OnTimeJudged:
    """A task with a deadline has ended: whether it was in time, and how probable that was predicted to be."""

    probability: float
    met: bool


@dataclass(frozen=True, slots=True)
class ForgetTask:
    task_id: str


@dataclass(frozen=True, slots=True)
class StageModel:
    """Answered by ModelStaged or StagingFailed."""

    node_id: str
    source: str


@dataclass(frozen=True, slots=True)
class DeleteStagedModel:
    """Answered by StagedModelDeleted, unless it can't be done; then the file stays."""

    node_id: str
    source: str


@dataclass(frozen=True, slots=True)
class ForgetSavedSession:
    """A session has ended: what the node's disk has of it goes. Answered by nothing: the node's reports tell."""

    node_id: str
    app: str
    session_id: str


@dataclass(frozen=True, slots=True)
class ForgetAllSavedSessions:
    """Of all sessions there are."""

    node_id: str


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Answered by WorkerStartAccepted or WorkerStartFailed."""

    node_id: str
    spec: WorkerSpec


@dataclass(frozen=True, slots=True)
class SessionToSave:
    """`keep_s` is how long the disk may have it, more than 0."""

    app: str
    session_id: str
    keep_s: float


@dataclass(frozen=True, slots=True)
class StopWorker:
    """`save` are sessions that it should have in its KV cache, those first that are the first to be saved."""

    node_id: str
    worker_id: str
    why: Leaving
    save: tuple[SessionToSave, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaveNode:
    """It is no node any more: its channel can be closed."""

    node_id: str


@dataclass(frozen=True, slots=True)
class AttachWorker:
    """Open the link to a worker and keep it; answered by WorkerAttached and RunsFound."""

    worker_id: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DetachWorker:
    worker_id: str


@dataclass(frozen=True, slots=True)
class StartRun:
    """From now on this attempt may write into the task's log, `number` counts the task's from 1. If an earlier one may
    write as well, the first to do so decides: AttemptDecided. `promise` is what the worker has to keep, if it is what
    the brain holds it to be.
    """

    worker_id: str
    attempt_id: str
    request: TaskRequest
    remaining_s: float | None
    promise: Promise | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class AdoptRun:
    """A run of before the start: what it writes goes into the task's log, which is empty, and has its epoch from now
    on. `entries` are those that there were when it was found: readers may have been shown them.
    """

    worker_id: str
    attempt_id: str
    task_id: str
    log_epoch: int
    entries: int


@dataclass(frozen=True, slots=True)
class BeginAnew:
    """The output of a task of before the start is lost, if there was any: its cursors are not waited for any more."""

    task_id: str


@dataclass(frozen=True, slots=True)
class CancelRun:
    """What the attempt still writes is dropped, unless `keeps_output`: until its task has its terminal."""

    worker_id: str
    attempt_id: str
    keeps_output: bool = False


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """Of a task that has not ended: it waits again, or has its terminal at once. One lost to its LEASE may be back."""

    task_id: str
    model: str
    loss: Loss


@dataclass(frozen=True, slots=True)
class RunGaveWay:
    """To a task of a higher class. Its own task, of this class, waits again."""

    model: str
    priority: str


@dataclass(frozen=True, slots=True)
class WatchOutput:
    """Answered by OutputWentOn when the task's log is so many entries longer than it is now."""

    task_id: str
    entries: int


@dataclass(frozen=True, slots=True)
class CountLostOutput:
    """Answered by LostOutputCounted. From now on the attempt writes no more."""

    attempt_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class ReleaseRuns:
    worker_id: str
    attempt_ids: tuple[str, ...]


Effect = (
    OpenLog
    | OpenFoundLog
    | StartPredicted
    | AnnouncePlacement
    | Narrate
    | WarnOfNode
    | AppendTerminal
    | PersistTask
    | PersistPromise
    | PersistStop
    | PersistTerminal
    | PersistRecord
    | PersistChange
    | TokensUsed
    | PredictionJudged
    | OnTimeJudged
    | ForgetTask
    | StageModel
    | DeleteStagedModel
    | ForgetSavedSession
    | ForgetAllSavedSessions
    | StartWorker
    | StopWorker
    | LeaveNode
    | AttachWorker
    | DetachWorker
    | StartRun
    | AdoptRun
    | BeginAnew
    | CancelRun
    | AttemptLost
    | RunGaveWay
    | WatchOutput
    | CountLostOutput
    | ReleaseRuns
)
