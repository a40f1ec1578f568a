"""Every error that llama-orch raises on purpose.

The tree; each leaf is one gRPC code, and one HTTP status by `llorch.rpc.http_status`:

    LlorchError
    ├── InvalidArgument      the request can't be right whatever the state is
    ├── NotFound             the thing named does not exist (any more)
    ├── AlreadyExists        the id is taken by something else
    ├── FailedPrecondition   right in itself, but not in this state
    ├── Unauthenticated      no identity, or one that can't be proven
    ├── PermissionDenied     a known identity that may not do this
    ├── ResourceExhausted    full now; `retry_after_ms` says when to try again
    ├── Unavailable          gone or not there yet; trying again may help
    ├── DeadlineExceeded     the time given was not enough
    ├── Aborted              another command came in between
    ├── Unimplemented        the contract names it, this release does not do it
    └── Internal             our fault; the client sees an id, never the text of an exception

An error's message is written for the person that caused it: it names the thing and the remedy, and never holds
a path, an address or a secret that the client did not send.

This module is pure: decisions raise these errors, and `llorch.rpc` turns them into statuses.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Machine-readable reasons, the names of `ErrorReason` in the contract without their prefix.

    `tests/contract` holds the two lists equal. What each means, an example and what to do: `error_reason.proto`.
    """

    INVALID_FIELD = "INVALID_FIELD"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    UNSUPPORTED_CONTENT = "UNSUPPORTED_CONTENT"
    UNSUPPORTED_OPTION = "UNSUPPORTED_OPTION"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    INVALID_GRAMMAR = "INVALID_GRAMMAR"
    INVALID_TEMPLATE = "INVALID_TEMPLATE"
    INVALID_CURSOR = "INVALID_CURSOR"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    MODEL_RETIRED = "MODEL_RETIRED"
    MODEL_FILE_MISSING = "MODEL_FILE_MISSING"
    MODEL_FILE_INVALID = "MODEL_FILE_INVALID"
    MODEL_FITS_NO_DEVICE = "MODEL_FITS_NO_DEVICE"
    MODEL_LOAD_FAILED = "MODEL_LOAD_FAILED"
    MODEL_IN_USE = "MODEL_IN_USE"
    UNSUPPORTED_SOURCE = "UNSUPPORTED_SOURCE"
    SOURCE_REFUSED = "SOURCE_REFUSED"
    NO_DEVICE = "NO_DEVICE"
    PIN_EXCLUDES_ALL = "PIN_EXCLUDES_ALL"
    ASSIGNMENT_CONFLICT = "ASSIGNMENT_CONFLICT"
    SET_ELSEWHERE = "SET_ELSEWHERE"
    NAME_TAKEN = "NAME_TAKEN"
    OTHER_STATE_NEEDED = "OTHER_STATE_NEEDED"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    EXPIRED = "EXPIRED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    ATTEMPT_EXISTS = "ATTEMPT_EXISTS"
    ATTEMPT_RELEASED = "ATTEMPT_RELEASED"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    ASSIGNMENT_NOT_FOUND = "ASSIGNMENT_NOT_FOUND"
    APP_NOT_FOUND = "APP_NOT_FOUND"
    NODE_ID_TAKEN = "NODE_ID_TAKEN"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    POOL_NOT_FOUND = "POOL_NOT_FOUND"
    DEVICE_NOT_FOUND = "DEVICE_NOT_FOUND"
    WORKER_NOT_FOUND = "WORKER_NOT_FOUND"
    WORKER_ID_USED = "WORKER_ID_USED"
    WORKER_LOST = "WORKER_LOST"
    WORKER_NOT_READY = "WORKER_NOT_READY"
    NO_FREE_SLOT = "NO_FREE_SLOT"
    QUEUE_FULL = "QUEUE_FULL"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    DROPPED_FROM_QUEUE = "DROPPED_FROM_QUEUE"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    SLOW_READER = "SLOW_READER"
    STREAM_RESET = "STREAM_RESET"
    RECOVERING = "RECOVERING"
    DRAINING = "DRAINING"
    CANCELLED = "CANCELLED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    BUDGET_SPENT = "BUDGET_SPENT"
    OUTPUT_TOO_LARGE = "OUTPUT_TOO_LARGE"
    STALE_EPOCH = "STALE_EPOCH"
    STALE_SESSION = "STALE_SESSION"
    NOT_LEADER = "NOT_LEADER"
    VERSION_SKEW = "VERSION_SKEW"
    DETERMINISM_UNAVAILABLE = "DETERMINISM_UNAVAILABLE"
    QUARANTINED = "QUARANTINED"
    TOKEN_MISSING = "TOKEN_MISSING"
    TOKEN_INVALID = "TOKEN_INVALID"
    NOT_PERMITTED = "NOT_PERMITTED"
    CPU_NOT_ALLOWED = "CPU_NOT_ALLOWED"
    GPU_BUILD_MISSING = "GPU_BUILD_MISSING"
    ENGINE_FAILED = "ENGINE_FAILED"
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    STORE_FAILED = "STORE_FAILED"
    STORE_FULL = "STORE_FULL"
    INTERNAL = "INTERNAL"

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later, without anyone having to change it or the settings. The only
        place that says so: statuses, headers, events and the SDK ask here.
        """
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        Reason.MODEL_IN_USE,
        Reason.NO_DEVICE,
        Reason.WORKER_LOST,
        Reason.WORKER_NOT_READY,
        Reason.NO_FREE_SLOT,
        Reason.QUEUE_FULL,
        Reason.TOO_MANY_CALLS,
        Reason.DROPPED_FROM_QUEUE,
        Reason.SLOW_READER,
        Reason.RECOVERING,
        Reason.DRAINING,
        Reason.QUOTA_EXCEEDED,
        Reason.STALE_EPOCH,
        Reason.DETERMINISM_UNAVAILABLE,
        Reason.ENGINE_FAILED,
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.STORE_FAILED,
        Reason.STORE_FULL,
    }
)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that can't be right: `field` is its path in the contract, e.g. `generate.max_tokens`."""

    field: str
    description: str


class LlorchError(Exception):
    """The root. Raise a leaf.

    `reason` is what programs act on, `message` what people read. `retry_after_ms` is set where waiting helps; it is
    dropped with a reason that is not retryable.
    `metadata` holds small machine-readable facts for `ErrorInfo.metadata` (e.g. `{"model": "coder"}`).
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_ms: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = violations
        self.retry_after_ms = retry_after_ms if reason.is_retryable else None
        self.metadata = metadata or {}

    @property
    def field(self) -> str:
        """Path in the contract of the first field that the error is about; empty if it is about none."""
        return self.violations[0].field if self.violations else self.metadata.get("field", "")


class InvalidArgument(LlorchError):
    code = "INVALID_ARGUMENT"


class NotFound(LlorchError):
    code = "NOT_FOUND"


class AlreadyExists(LlorchError):
    code = "ALREADY_EXISTS"


class FailedPrecondition(LlorchError):
    code = "FAILED_PRECONDITION"


class Unauthenticated(LlorchError):
    code = "UNAUTHENTICATED"


class PermissionDenied(LlorchError):
    code = "PERMISSION_DENIED"


class ResourceExhausted(LlorchError):
    code = "RESOURCE_EXHAUSTED"


class Unavailable(LlorchError):
    code = "UNAVAILABLE"


class DeadlineExceeded(LlorchError):
    code = "DEADLINE_EXCEEDED"


class Aborted(LlorchError):
    code = "ABORTED"


class Unimplemented(LlorchError):
    code = "UNIMPLEMENTED"


class Internal(LlorchError):
    code = "INTERNAL"


def invalid_field(field: str, description: str) -> InvalidArgument:
    """The refusal of one field: names it and says what would be right."""
    return InvalidArgument(
        Reason.INVALID_FIELD, f"{field}: {description}", violations=(FieldViolation(field, description),)
    )
