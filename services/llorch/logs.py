"""Structured logs on stderr: JSON for machines, readable lines on a terminal.

Events are named in snake_case with facts as fields. Prompts and outputs are never logged, and tokens only as
their fingerprint; fields whose names say that they hold a secret are redacted all the same, and so are secrets in URLs.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from llorch.redaction import REDACTED, redacted
from llorch.rpc.call_context import call_or_none

_SECRET_FIELDS = frozenset(
    {
        "access_token",
        "api_key",
        "authorization",
        "metrics_token",
        "node_token",
        "password",
        "ready_token",
        "secret",
        "token",
    }
)


def configure_logging(service: str, level: str = "info") -> None:
    """Called once per process, before anything logs. `level` is debug, info, warning or error."""
    numeric = logging.getLevelNamesMapping()[level.upper()]
    readable = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _name_service(service),
            add_correlation_id,
            *(_readable(numeric) if readable else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """A logger whose lines carry `component=name`. Takes effect with the configuration at its first line."""
    return structlog.get_logger(component=name)


def add_correlation_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Names the call that a line was written in, if there is one."""
    call = call_or_none()
    if call is not None:
        event.setdefault("correlation_id", call.correlation_id)
    return event


def redact_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field in _SECRET_FIELDS & event.keys():
        event[field] = REDACTED
    for field, value in event.items():
        if isinstance(value, str):
            event[field] = redacted(value)
    return event


def _name_service(service: str) -> structlog.typing.Processor:
    def name_service(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return name_service


def _json() -> list[structlog.typing.Processor]:
    return [structlog.processors.format_exc_info, redact_secrets, structlog.processors.JSONRenderer()]


def _readable(level: int) -> list[structlog.typing.Processor]:
    """A person sees a traceback only when asking for details (debug)."""
    if level > logging.DEBUG:
        return [_error_in_one_line, redact_secrets, structlog.dev.ConsoleRenderer()]
    return [structlog.processors.format_exc_info, redact_secrets, structlog.dev.ConsoleRenderer()]


def _error_in_one_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}"
    return event
