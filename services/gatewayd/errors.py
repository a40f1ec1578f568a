"""The HTTP side of the error tree: statuses, headers and the body that every refusal has.

{"error": {"code": "QUEUE_FULL", "status": "RESOURCE_EXHAUSTED", "message": "…", "retryable": true,
           "retry_after_ms": 1200, "correlation_id": "cor-…"}}
"""

import math
from typing import Any

from gatewayd.route_table import MethodNotAllowed
from llorch.errors import LlorchError, Reason, ResourceExhausted, Unauthenticated
from llorch.rpc.http_status import HTTP_STATUS

Headers = list[tuple[bytes, bytes]]

_STATUS_BY_REASON = {Reason.REQUEST_TOO_LARGE: 413, Reason.METHOD_NOT_ALLOWED: 405}
_RETRYABLE = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"})
_LEGACY_CODES = {Reason.TOKEN_MISSING: 40101, Reason.TOKEN_INVALID: 40102, Reason.NOT_PERMITTED: 40301}
"""Numbers that clients of the first API release know."""


def http_status(error: LlorchError) -> int:
    return _STATUS_BY_REASON.get(error.reason) or HTTP_STATUS[error.code]


def is_retryable(error: LlorchError) -> bool:
    """Whether the same request may succeed later."""
    return error.code in _RETRYABLE or error.retry_after_ms is not None


def error_body(error: LlorchError, correlation_id: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "code": error.reason.value,
        "status": error.code,
        "message": error.message,
        "retryable": is_retryable(error),
    }
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
    if error.violations:
        body["violations"] = [{"field": v.field, "description": v.description} for v in error.violations]
    if error.reason in _LEGACY_CODES:
        body["legacy_code"] = _LEGACY_CODES[error.reason]
    body["correlation_id"] = correlation_id
    return {"error": body}


def error_headers(error: LlorchError) -> Headers:
    headers: Headers = []
    if error.retry_after_ms is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_ms / 1000))).encode()))
    if isinstance(error, ResourceExhausted):
        policy = error.metadata.get("policy_label", "reject")
        headers.append((b"x-backpressure-policy", policy.encode("ascii", "replace")))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    return headers
