"""A task, its attempts, and the only legal transitions between its states.

QUEUED ──► RUNNING ──► COMPLETED
│  ▲        │ ├────► FAILED
│  └────────┘ ├────► CANCELLED
│ (attempt    └────► EXPIRED
│  lost, or
│  pool drained)
└──► FAILED, CANCELLED, EXPIRED
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from llorch.errors import NotFound, Reason
from llorch.finish_reason import FinishReason
from orchestratord.core.facts.attempt import Attempt, Loss
from orchestratord.core.facts.backlog import TaskSize
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.rules import NO_OVERRIDES, Overrides, Wishes
from orchestratord.core.facts.sessions import Budget
from orchestratord.core.facts.suspicion import Suspicion
from orchestratord.core.facts.work import Work

LOSSES_KEPT = 16

WAITING_BYTES = 4096
"""What a task holds while it waits, beside its payload: 2.4 KiB were measured, and what waits for it comes on top."""
_WISH_BYTES = 256
"""A target as it was written, and the place that it means."""


class TaskState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class CancelOutcome(StrEnum):
    """The result of a cancel, for a task that is known."""

    CANCELLED = "CANCELLED"
    ALREADY_FINISHED = "ALREADY_FINISHED"


_ENDINGS = frozenset({TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})

TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: _ENDINGS | {TaskState.RUNNING},
    TaskState.RUNNING: _ENDINGS | {TaskState.COMPLETED, TaskState.QUEUED},
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
    TaskState.EXPIRED: frozenset(),
}

TERMINAL_STATES = frozenset(state for state, following in TRANSITIONS.items() if not following)


class IllegalTransition(AssertionError):
    """A transition that the table does not have; always a bug."""


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What was asked for. `payload` is the work for the worker, opaque here; everything that decides is beside it.

    `prompt_tokens` is a guess from the text's length; `max_tokens` bounds each of the `choices`, and is 0 where nothing
    is generated; each has exactly so many if it `fills_limit`, since nothing else ends it. Without a `priority` it is
    the app's. `content_digest` tells whether two requests with the same `request_id` are the same request. `deadline_s`
    is relative to admission. `wishes` about the place become
    `overrides` when the task is admitted. A `deterministic` task never shows bytes of two fingerprints.
    """

    task_id: str
    model: str
    payload: bytes
    content_digest: str
    seed: int
    work: Work = Work.GENERATE
    priority: str = "interactive"
    app: str = ""
    session_id: str = ""
    request_id: str = ""
    correlation_id: str = ""
    deadline_s: float | None = None
    durable: bool = False
    prompt_tokens: int = 0
    max_tokens: int | None = None
    choices: int = 1
    session_budget: Budget | None = None
    wishes: Wishes | None = None
    overrides: Overrides = NO_OVERRIDES
    deterministic: bool = False
    fills_limit: bool = False

    @property
    def size(self) -> TaskSize:
        return TaskSize(self.prompt_tokens, self.max_tokens or None, self.fills_limit)

    def without_work(self) -> "TaskRequest":
        """What is kept of it once the task has ended: what is shown, and what tells a repeated request."""
        return replace(self, payload=b"", session_budget=None, wishes=None, overrides=NO_OVERRIDES)

    @property
    def waiting_bytes(self) -> int:
        """What it holds of memory as long as it waits."""
        said = self.wishes
        wished = () if said is None else (*said.pin, *said.prefer, *said.avoid, *said.device_mask)
        return len(self.payload) + WAITING_BYTES + sum(_WISH_BYTES + 4 * len(target) for target in wished)


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    choice: int
    finish_reason: FinishReason
    tokens_out: int = 0
    stop_string: str = ""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A worker's result of a run; of one that failed, what it had used by then. `receipt`, of a deterministic run, is
    serialized and opaque here.
    """

    choices: tuple[ChoiceEnd, ...]
    tokens_in: int = 0
    tokens_out: int = 0
    cached_tokens: int = 0
    decode_ms: int = 0
    receipt: bytes = b""
    prefill_ms: int = 0


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """Terminal: an answer, or as much of it as there was when the task was ended early."""

    result: RunResult
    queue_ms: int
    first_token_ms: int


@dataclass(frozen=True, slots=True)
class TaskError:
    """Terminal: the task failed. `field` is the path in the contract of the field that was refused, if there is one."""

    reason: Reason
    message: str
    retry_after_ms: int | None = None
    field: str = ""

    @property
    def retryable(self) -> bool:
        return self.reason.is_retryable


def failure_on(node_id: str, reason: Reason, message: str) -> TaskError:
    """Of something that was tried on a node, which is named."""
    return TaskError(reason, message if f"'{node_id}'" in message else f"{message} (on {node_id})")


@dataclass(frozen=True, slots=True)
class Stopped:
    """Terminal: the task was ended early, by a caller or by its deadline, and no worker tells what its run came to: it
    ran nowhere, or its worker is gone or does not answer. Its log knows how much output there is; the counts of the
    prompt are those that the worker told at the start.
    """

    finish_reason: FinishReason
    queue_ms: int
    first_token_ms: int
    tokens_in: int = 0
    cached_tokens: int = 0
    decode_ms: int = 0


Terminal = TaskEnd | TaskError | Stopped


def unknown_task(task_id: str) -> NotFound:
    return NotFound(
        Reason.TASK_NOT_FOUND, f"no task has the id '{task_id[:128]}'; use the id that the submission answered"
    )


@dataclass(slots=True)
class Task:
    """A task as the brain keeps it. Times are on the brain's clock, in seconds.

    `predicted_start_ms` and `on_time` are what was predicted at its admission: the wait, and the probability that it is
    done in time, which is `on_time_forecast` corrected by how such forecasts came true. `promise` is what a
    deterministic task holds on to from its first attempt on. `waits_for` is what is away, as its readers were told;
    `placeless_since` when it began to wait for that. `stopping` is why it was ended early, while its worker still has
    to say what its run came to: its terminal follows. `unread` are attempts whose workers are out of reach; the first
    of them and `attempt` to bring output goes on. `losses` are why attempts were lost, the last ones; `lost` why the
    one before the next was, `fruitless` how many in a row were that brought no output. `tokens_in` and `cached_tokens`
    are as its last attempt had them. `gave_way_at`: when it first gave way to a task of a higher class.
    `may_return_until`: a reader whose line broke may come back as long. `was_refused`: the store could not take it, and
    its submitter was told so.
    """

    request: TaskRequest
    created_at: float
    state: TaskState = TaskState.QUEUED
    attempt: Attempt | None = None
    attempts: int = 0
    unread: dict[str, Attempt] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()
    lost: Loss | None = None
    fruitless: int = 0
    suspicion: Suspicion = field(default_factory=Suspicion)
    promise: Promise | None = None
    readers: int = 0
    to_be_read_by: float | None = None
    may_return_until: float = 0.0
    started_at: float | None = None
    first_token_at: float | None = None
    terminal: Terminal | None = None
    terminal_shown: bool = False
    was_refused: bool = False
    stopping: FinishReason | None = None
    tokens_in: int = 0
    cached_tokens: int = 0
    gave_way_at: float | None = None
    predicted_start_ms: int | None = None
    on_time: float | None = None
    on_time_forecast: float | None = None
    waits_for: tuple[str, ...] = ()
    placeless_since: float | None = None

    @property
    def task_id(self) -> str:
        return self.request.task_id

    @property
    def due_at(self) -> float | None:
        """When its deadline is."""
        deadline_s = self.request.deadline_s
        return None if deadline_s is None else self.created_at + deadline_s

    @property
    def is_finished(self) -> bool:
        return self.state in TERMINAL_STATES

    def may_be_read(self, now: float) -> bool:
        """By readers that have its end from nowhere else, and are there or may come back."""
        may_come_back = self.to_be_read_by is not None and now < self.to_be_read_by
        return not self.request.durable and (self.readers > 0 or may_come_back)

    def note_start(self, now: float) -> None:
        """Of the attempt that brings the first token: later ones do not make the task's wait longer."""
        if self.first_token_at is None:
            self.started_at = now

    def move_to(self, state: TaskState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"task {self.task_id}: {self.state} → {state}")
        self.state = state

    def note_loss(self, loss: Loss) -> None:
        self.lost = loss
        self.losses = (*self.losses, loss)[-LOSSES_KEPT:]

    def end_wait(self) -> None:
        """It has a place. If something is away later on, that is another wait."""
        self.waits_for, self.placeless_since = (), None
