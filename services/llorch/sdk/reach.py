"""Whether an orchestrator that does not answer is worth waiting for."""

from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unavailable
from llorch.rpc.status import has_broken, is_from_server, never_left

_PASSES = (Reason.RECOVERING, Reason.DRAINING)


class Reach:
    """One that this client has reached before is; where it never did, the address is wrong or none was started, and the
    user is told at once.
    """

    def __init__(self) -> None:
        self._was_reached = False

    def note_answer(self) -> None:
        self._was_reached = True

    def may_pass(self, error: LlorchError) -> bool:
        """Whether the same call may fare better in a moment; not where it took longer than its caller would wait."""
        self._was_reached = self._was_reached or not never_left(error)
        if is_from_server(error):
            return error.reason in _PASSES
        if isinstance(error, DeadlineExceeded):
            return False
        return self._was_reached and (isinstance(error, Unavailable) or has_broken(error))
