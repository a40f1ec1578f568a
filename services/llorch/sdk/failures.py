"""Errors that only a client can notice; all others come from the orchestrator."""

from llorch.errors import Aborted, Reason, Unavailable


class Unreachable(Unavailable):
    """No orchestrator answers at the address, or not in time. `found` says what is there instead, and what helps."""

    def __init__(self, address: str, found: str) -> None:
        super().__init__(Reason.UPSTREAM_UNAVAILABLE, f"no orchestrator answers at {address}: {found}")
        self.address = address


class TaskFailed(Aborted):
    """The task was accepted and failed.

    The call itself succeeded, which is why streams *yield* failures; this is raised where the caller asked for text
    only.
    """

    def __init__(self, reason: Reason, message: str, *, retryable: bool, retry_after_ms: int | None) -> None:
        super().__init__(reason, message, retry_after_ms=retry_after_ms)
        self.retryable = retryable
