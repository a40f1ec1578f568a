"""Errors as OpenAI's clients know them.

{"error": {"message": "…", "type": "invalid_request_error", "param": "top_p", "code": "invalid_field"}}

A task's own error is told the same way: as the answer, or as the last thing in a stream that has begun.
"""

from typing import Any

from gatewayd import errors
from gatewayd.errors import Headers, http_status
from llama_orch.v2 import task_event_pb2
from llorch.errors import LlorchError, Reason
from llorch.rpc.reasons import reason_of_proto
from llorch.task_failure import failure_of_task

_RETRY_HEADER = b"x-should-retry"

_CODES = {
    Reason.CONTEXT_TOO_LONG: "context_length_exceeded",
    Reason.PROMPT_TOO_LONG: "context_length_exceeded",
    Reason.TOKEN_MISSING: "invalid_api_key",
    Reason.TOKEN_INVALID: "invalid_api_key",
}
"""Codes that programs act on. Every other reason is its own code, in lower case."""

_NAMES = {"generate.output_constraint.json_schema": "response_format"}
_PATHS = ("generate.sampling.", "generate.chat.", "generate.")
"""Where OpenAI has a flat name, the contract has one below these."""


def error_body(error: LlorchError, _correlation_id: str) -> dict[str, Any]:
    """The correlation id is in the answer's header; this envelope has no place for it."""
    return {
        "error": {
            "message": _message(error),
            "type": _type(error),
            "param": _param(error),
            "code": _CODES.get(error.reason, error.reason.value.lower()),
        }
    }


def error_headers(error: LlorchError) -> Headers:
    """OpenAI's clients send again by status alone, unless they are told what is right."""
    return [*errors.error_headers(error), (_RETRY_HEADER, b"true" if error.reason.is_retryable else b"false")]


def failure_of(error: task_event_pb2.Error) -> LlorchError:
    """The error that a failed task stands for."""
    return failure_of_task(
        reason_of_proto(error.reason),
        error.message,
        retry_after_ms=error.retry_after_ms if error.HasField("retry_after_ms") else None,
        field=error.field,
    )


def _type(error: LlorchError) -> str:
    status = http_status(error)
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


def _param(error: LlorchError) -> str | None:
    return _openais_name(error.field) or None


def _message(error: LlorchError) -> str:
    """`generate.sampling.top_p` is `top_p` to the client that reads this."""
    return error.message.replace(error.field, _openais_name(error.field)) if error.field else error.message


def _openais_name(field: str) -> str:
    path = next((path for path in _PATHS if field.startswith(path)), "")
    return _NAMES.get(field, field.removeprefix(path))
