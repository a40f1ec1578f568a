"""What is told where the orchestrator refuses this gateway itself, whose token has to be the orchestrator's."""

from llorch.errors import Reason, Unauthenticated, Unavailable
from llorch.logs import get_logger

_log = get_logger("gatewayd")


def tokens_differ(refusal: Unauthenticated, *, shows_token: bool) -> Unavailable:
    """Clients can do nothing about it, so that it is no 401. `shows_token`: whether this gateway has a token."""
    message = _why(refusal, shows_token=shows_token)
    _log.error("orchestrator_refuses_this_gateway", reason=refusal.reason, what_to_do=message)
    return Unavailable(Reason.UPSTREAM_UNAVAILABLE, message)


def _why(refusal: Unauthenticated, *, shows_token: bool) -> str:
    if not shows_token:
        return (
            "the orchestrator asks for a token, and this gateway has none; its operator sets the orchestrator's for it "
            "too (LLORCH_GATEWAY_TOKEN)"
        )
    if refusal.reason is Reason.TOKEN_MISSING:
        return (
            "this gateway has a token and the orchestrator has none, so that it takes no calls for clients of other "
            "machines; its operator sets the same for both (LLORCH_ORCHESTRATOR_TOKEN)"
        )
    return (
        "the orchestrator has another token than this gateway; its operator sets the same for both "
        "(LLORCH_GATEWAY_TOKEN, LLORCH_ORCHESTRATOR_TOKEN)"
    )
