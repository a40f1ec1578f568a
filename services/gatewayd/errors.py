"""The HTTP side of the error tree: statuses, headers and the body that every refusal has.

{"error": {"code": "QUEUE_FULL", "status": "RESOURCE_EXHAUSTED", "message": "…", "retryable": true,
           "retry_after_ms": 1200, "policy_label": "reject", "correlation_id": "cor-…"}}
"""

import math
from typing import Any

from gatewayd.route_table import MethodNotAllowed
from llorch.errors import LlorchError, PermissionDenied, Reason, Unauthenticated
from llorch.rpc.http_status import HTTP_STATUS

Headers = list[tuple[bytes, bytes]]

_STATUS_BY_REASON = {Reason.REQUEST_TOO_LARGE: 413, Reason.METHOD_NOT_ALLOWED: 405}
_LEGACY_CODES = {
    (Unauthenticated, Reason.TOKEN_MISSING): 40101,
    (Unauthenticated, Reason.TOKEN_INVALID): 40102,
    (PermissionDenied, Reason.NOT_PERMITTED): 40301,
}
"""Numbers that clients of the first API release know. The first three digits are the status."""


def http_status(error: LlorchError) -> int:
    return _STATUS_BY_REASON.get(error.reason) or HTTP_STATUS[error.code]


def policy_of(error: LlorchError) -> str:
    """The policy that refused the request; empty where none did, but a quota, a budget or a limit."""
    return error.metadata.get("policy_label", "")


def error_body(error: LlorchError, correlation_id: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "code": error.reason.value,
        "status": error.code,
        "message": error.message,
        "retryable": error.reason.is_retryable,
    }
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
    if error.violations:
        body["violations"] = [{"field": v.field, "description": v.description} for v in error.violations]
    if policy := policy_of(error):
        body["policy_label"] = policy
    if legacy_code := _legacy_code(error):
        body["legacy_code"] = legacy_code
    body["correlation_id"] = correlation_id
    return {"error": body}


def error_headers(error: LlorchError) -> Headers:
    headers: Headers = []
    if error.retry_after_ms is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_ms / 1000))).encode()))
    if policy := policy_of(error):
        headers.append((b"x-backpressure-policy", policy.encode("ascii", "replace")))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    return headers


def _legacy_code(error: LlorchError) -> int | None:
    return next(
        (code for (kind, reason), code in _LEGACY_CODES.items() if isinstance(error, kind) and error.reason is reason),
        None,
    )
