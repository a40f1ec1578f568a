"""The error that a failed task stands for, where a call waits for the task and has to answer with one. Pure."""

from collections.abc import Mapping

from llorch.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    LlorchError,
    NotFound,
    Reason,
    ResourceExhausted,
    Unavailable,
)

# Failures that are the client's doing, or that waiting cures. The rest is ours.
_LEAVES: Mapping[Reason, type[LlorchError]] = {
    Reason.INVALID_FIELD: InvalidArgument,
    Reason.UNKNOWN_FIELD: InvalidArgument,
    Reason.MALFORMED_REQUEST: InvalidArgument,
    Reason.REQUEST_TOO_LARGE: InvalidArgument,
    Reason.UNSUPPORTED_CONTENT: InvalidArgument,
    Reason.UNSUPPORTED_OPTION: InvalidArgument,
    Reason.CONTEXT_TOO_LONG: InvalidArgument,
    Reason.PROMPT_TOO_LONG: InvalidArgument,
    Reason.INVALID_GRAMMAR: InvalidArgument,
    Reason.INVALID_TEMPLATE: InvalidArgument,
    Reason.MODEL_NOT_FOUND: NotFound,
    Reason.QUEUE_FULL: ResourceExhausted,
    Reason.OUTPUT_TOO_LARGE: ResourceExhausted,
    Reason.DROPPED_FROM_QUEUE: ResourceExhausted,
    Reason.DEADLINE_PASSED: DeadlineExceeded,
}


def failure_of_task(reason: Reason, message: str, *, retry_after_ms: int | None, field: str = "") -> LlorchError:
    """`field` is the path in the contract of the field that was refused; empty if the failure is about none."""
    leaf = _LEAVES.get(reason, Unavailable if reason.is_retryable else Internal)
    metadata = {"field": field} if field else {}
    if reason is Reason.DROPPED_FROM_QUEUE:
        metadata["policy_label"] = "drop-lru"
    return leaf(reason, message, retry_after_ms=retry_after_ms, metadata=metadata)
