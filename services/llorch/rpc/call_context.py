"""Facts about the call that a handler serves, without a parameter for them."""

from contextvars import ContextVar
from dataclasses import dataclass

CORRELATION_ID = "x-correlation-id"
"""The metadata entry that names a request on its way through all daemons."""


@dataclass(slots=True)
class CallInfo:
    """One per call, made by the guard and never changed after that.

    `identity` is what the server's authenticator calls the caller, e.g. `localhost` or `token:<6 hex>`; `app` is the
    name of the app that it is, or empty.
    `comes_by_gateway`: as the caller says, so good for nothing that it could not have otherwise.
    `deadline_s` is the time that the client gave, as it stood when the call came in; None is no deadline.
    """

    correlation_id: str
    identity: str
    peer: str
    deadline_s: float | None
    app: str = ""
    comes_by_gateway: bool = False


_CALL: ContextVar[CallInfo | None] = ContextVar("llorch_call", default=None)

enter_call = _CALL.set
"""The guard's: every call runs in a task of its own, so nothing needs to be reset."""

call_or_none = _CALL.get


def current_call() -> CallInfo:
    """The call that this task serves. Raises LookupError outside of a handler."""
    call = _CALL.get()
    if call is None:
        raise LookupError("no call is being served here")
    return call
