"""Between the error tree and `google.rpc.Status`, in both directions."""

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from llorch import errors
from llorch.errors import FieldViolation, LlorchError, Reason
from llorch.redaction import redacted

DOMAIN = "llama-orch"
DETAILS_KEY = "grpc-status-details-bin"

# In ASCII characters. Most peers drop trailing metadata of more than 8 KiB, and the whole status with it; these
# bounds keep it below. The message travels twice.
_MAX_MESSAGE = 1000
_MAX_DESCRIPTION = 300
_MAX_NAME = 100
_MAX_VIOLATIONS = 8

_LEAVES: dict[str, type[LlorchError]] = {
    leaf.code: leaf
    for leaf in (
        errors.InvalidArgument,
        errors.NotFound,
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Aborted,
        errors.Unimplemented,
        errors.Internal,
    )
}

# Statuses that no llama-orch server made: grpc itself, on either side, or another program.
_BARE: dict[StatusCode, tuple[type[LlorchError], Reason, str]] = {
    StatusCode.INVALID_ARGUMENT: (
        errors.InvalidArgument,
        Reason.MALFORMED_REQUEST,
        "the server refused the request",
    ),
    StatusCode.DEADLINE_EXCEEDED: (
        errors.DeadlineExceeded,
        Reason.DEADLINE_PASSED,
        "no answer came within the time given",
    ),
    StatusCode.PERMISSION_DENIED: (
        errors.PermissionDenied,
        Reason.NOT_PERMITTED,
        "the server does not permit this",
    ),
    StatusCode.RESOURCE_EXHAUSTED: (errors.ResourceExhausted, Reason.TOO_MANY_CALLS, "the server is busy"),
    StatusCode.UNAUTHENTICATED: (
        errors.Unauthenticated,
        Reason.TOKEN_INVALID,
        "the server wants a valid token",
    ),
    StatusCode.UNAVAILABLE: (
        errors.Unavailable,
        Reason.UPSTREAM_UNAVAILABLE,
        "the server can't be reached; see whether it runs",
    ),
    StatusCode.UNIMPLEMENTED: (
        errors.Unimplemented,
        Reason.NOT_IMPLEMENTED,
        "the server does not have this method",
    ),
    StatusCode.CANCELLED: (errors.Unavailable, Reason.UPSTREAM_UNAVAILABLE, "the other side ended the call"),
}

# What grpc.aio makes of a write that fails because the call has ended; the status of the end is lost to it.
_WRITE_AFTER_END = "Internal error from Core"

# And how it begins what it says of a call for which no connection could be made.
_NOT_CONNECTED = ("failed to connect", "resolving ")


def error_from_rpc(error: grpc.aio.AioRpcError) -> LlorchError:
    """The leaf that a failed call stands for; never holds text that did not come from a llama-orch server."""
    told = _told(error)
    if told is not None:
        return told
    code, details = error.code(), error.details() or ""
    if code is StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return errors.InvalidArgument(Reason.REQUEST_TOO_LARGE, "the message is larger than what one call may carry")
    if code is StatusCode.INTERNAL and details == _WRITE_AFTER_END:
        code = StatusCode.CANCELLED
    leaf, reason, message = _BARE.get(code, (errors.Internal, Reason.INTERNAL, f"the call failed with {code.name}"))
    return leaf(reason, message)


def is_from_server(error: LlorchError) -> bool:
    """Whether a llama-orch server made the status. Otherwise the call failed on its way, whatever its code is."""
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and _told(cause) is not None


def has_broken(error: LlorchError) -> bool:
    """Whether the error is of a call, and the call failed on its way."""
    return isinstance(error.__cause__, grpc.aio.AioRpcError) and not is_from_server(error)


def never_left(error: LlorchError) -> bool:
    """Whether the call reached no server, since no connection could be made. Another one that broke on its way may have
    done what it asked for.
    """
    cause = error.__cause__
    if not isinstance(cause, grpc.aio.AioRpcError) or _told(cause) is not None:
        return False
    return (cause.details() or "").lower().startswith(_NOT_CONNECTED)


def _told(error: grpc.aio.AioRpcError) -> LlorchError | None:
    metadata = error.trailing_metadata()
    raw = metadata.get(DETAILS_KEY) if metadata is not None else None
    return error_from_details(raw) if isinstance(raw, bytes) else None


def error_from_details(raw: bytes) -> LlorchError | None:
    """The leaf that `status_details` serialized; None where another program did."""
    try:
        return error_from_status(status_pb2.Status.FromString(raw))
    except DecodeError:
        return None


def status_code(error: LlorchError) -> StatusCode:
    return StatusCode[error.code]


def status_message(error: LlorchError) -> str:
    return _short(redacted(error.message), _MAX_MESSAGE)


def status_details(error: LlorchError) -> bytes:
    """The serialized `google.rpc.Status`: one ErrorInfo, and RetryInfo and BadRequest where they fit."""
    code: int = status_code(error).value[0]
    status = status_pb2.Status(code=code, message=status_message(error))
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
    info.metadata.update({key: _short(value, _MAX_NAME) for key, value in error.metadata.items()})
    status.details.add().Pack(info)
    if error.retry_after_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        status.details.add().Pack(retry)
    if error.violations:
        status.details.add().Pack(_bad_request(error.violations[:_MAX_VIOLATIONS]))
    serialized: bytes = status.SerializeToString()
    return serialized


def error_from_status(status: status_pb2.Status) -> LlorchError | None:
    """The leaf that `status_details` was made of; None where another program made the status."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        _ = detail.Unpack(info) or detail.Unpack(retry) or detail.Unpack(bad_request)
    leaf = leaf_of(status.code)
    if info.domain != DOMAIN or leaf is None:
        return None
    return leaf(
        # A newer server may have reasons that this release does not know.
        Reason(info.reason) if info.reason in Reason.__members__ else Reason.INTERNAL,
        status.message,
        violations=tuple(FieldViolation(v.field, v.description) for v in bad_request.field_violations),
        retry_after_ms=retry.retry_delay.ToMilliseconds() if retry.HasField("retry_delay") else None,
        metadata=dict(info.metadata),
    )


def leaf_of(code: int) -> type[LlorchError] | None:
    """The leaf of a numeric gRPC code, or None where no leaf has it (CANCELLED, UNKNOWN, …)."""
    return next((_LEAVES.get(known.name) for known in StatusCode if known.value[0] == code), None)


def _bad_request(violations: tuple[FieldViolation, ...]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=_short(v.field, _MAX_NAME), description=_short(redacted(v.description), _MAX_DESCRIPTION)
            )
            for v in violations
        ]
    )


def _short(text: str, most: int) -> str:
    """Other characters take several bytes, and percent-encoded up to twelve."""
    most = most if text.isascii() else most // 3
    return text if len(text) <= most else f"{text[: most - 1]}…"
