"""The interface of every store. One contract suite runs over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.task import TaskRequest, TaskState, Terminal


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Which cluster this is, and the number of its orchestrator's start, from 1."""

    cluster_id: str
    control_epoch: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ended, with its output, which is opaque here, and the epoch of the log that the output stands in.
    `at_ms` is in milliseconds since 1970.
    """

    state: TaskState
    terminal: Terminal
    output: bytes
    at_ms: int
    log_epoch: int = 1


@dataclass(frozen=True, slots=True)
class KeptTask:
    """An accepted task, and how it ended if it did. `accepted_at_ms` is in milliseconds since 1970.

    `promise` is what it made when it began, if it is deterministic.
    """

    request: TaskRequest
    accepted_at_ms: int
    ending: Ending | None = None
    promise: Promise | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """The caller and the change that it asked for, and the outcome: "done", or the reason of the refusal.

    `details` is JSON without secrets. `seq` is given by the store and grows.
    """

    at_ms: int
    actor: str
    correlation_id: str
    action: str
    details: str
    outcome: str
    seq: int = 0


class Store(Protocol):
    """Every call returns only when what it was given is kept, or raises Unavailable / STORE_FAILED.

    Of a call that failed so it is not known whether it was kept: a disk may fail after it has written. All may be made
    again, and keep then what they would have kept alone. Calls come from one event loop, several may be under way at
    once; they take effect in the order in which they were made. When a later incarnation has begun, an earlier one
    can't write: FailedPrecondition / STALE_EPOCH.
    """

    async def begin_incarnation(self) -> Incarnation:
        """The epoch is one higher than ever before in this store, and kept before any caller sees it."""
        ...

    async def raise_epoch(self, above: int) -> Incarnation:
        """The same incarnation with an epoch above its own and this one, kept before any caller sees it.

        An incarnation that was superseded is refused as in every other call.
        """
        ...

    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        """A new task comes after all that were accepted before it, whatever the time is said to be."""
        ...

    async def save_promise(self, task_id: str, promise: Promise | None) -> None:
        """In place of an earlier one; None takes it back."""
        ...

    async def save_ending(self, task_id: str, ending: Ending) -> None:
        """From then on the request is kept without its payload. In place of an earlier ending. Of a task that is not
        there nothing is kept.
        """
        ...

    async def forget_task(self, task_id: str) -> None: ...

    async def tasks(self) -> list[KeptTask]:
        """In the order in which they were accepted."""
        ...

    async def save_records(self, changes: Sequence[RecordChange], audit: AuditEntry | None = None) -> None:
        """All of them and the note of who asked for them, or nothing."""
        ...

    async def records(self) -> list[Record]:
        """All that are kept, by kind and key; of kinds with `keep_last` in the order in which they came."""
        ...

    async def append_audit(self, entry: AuditEntry) -> None: ...

    async def audit(self, before_seq: int | None, limit: int) -> list[AuditEntry]:
        """The newest first, from before `before_seq` on."""
        ...

    async def close(self) -> None:
        """Finishes the writes that were asked for before, then closes the store. Idempotent."""
        ...
