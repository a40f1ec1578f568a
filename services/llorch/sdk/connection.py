"""Where the orchestrator is, and what to show it: argument > environment > what `llorch up` keeps > default."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from llorch.errors import LlorchError, Reason, Unauthenticated, invalid_field
from llorch.token_file import FoundToken, find_token

DEFAULT_ADDRESS = "127.0.0.1:8090"
_DEFAULT_PORT = DEFAULT_ADDRESS.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to connect, and what to show there. Addresses are `host:port`. `kept` is what was found in this machine's
    files where no token was `given`.
    """

    asked_for: str
    given: str | None = field(default=None, repr=False)
    kept: FoundToken | None = None

    @property
    def address(self) -> str:
        """For `localhost` the one that the token is kept for: at another address of that name another program may
        listen.
        """
        return self.kept.address if self.kept is not None and self.kept.token is not None else self.asked_for

    @property
    def token(self) -> str | None:
        return self.given or (self.kept.token if self.kept is not None else None)

    def now(self, env: Mapping[str, str] | None = None) -> "Connection":
        """With what is kept by now: an `llorch up` may have begun or ended since."""
        return self if self.given else replace(self, kept=find_token(self.asked_for, env))

    def explained(self, refusal: Unauthenticated) -> LlorchError:
        """The refusal with its remedy, for the user of this connection."""
        if self.kept is not None and self.kept.token is not None:
            message = (
                f"the orchestrator at {self.address} does not take the token in {self.kept.path}, where `llorch up` "
                "keeps it; set LLORCH_API_TOKEN to the right one"
            )
        elif refusal.reason is Reason.TOKEN_MISSING and self.token is None:
            remains = f"; {self.kept.path} {self.kept.problem}" if self.kept is not None else ""
            message = (
                f"the orchestrator at {self.address} asks for a token: set LLORCH_API_TOKEN to the one that it was "
                f"started with (LLORCH_ORCHESTRATOR_TOKEN, or `token` in its settings file){remains}"
            )
        elif self.given is not None and refusal.reason is Reason.TOKEN_INVALID:
            message = (
                f"the orchestrator at {self.address} does not take the bearer token that it was shown (--token, or "
                "LLORCH_API_TOKEN): it was started with another one (LLORCH_ORCHESTRATOR_TOKEN, or `token` in its "
                "settings file)"
            )
        else:
            return refusal
        return Unauthenticated(refusal.reason, message)


def find_connection(
    address: str | None = None,
    token: str | None = None,
    env: Mapping[str, str] | None = None,
    *,
    port: str = _DEFAULT_PORT,
) -> Connection:
    """Reads LLORCH_ADDRESS and LLORCH_API_TOKEN for what is not given. A host alone gets `port`.

    The token that `llorch up` of this user keeps is for addresses of loopback only: it is shown to no other machine.
    """
    variables = os.environ if env is None else env
    complete = _complete(address or variables.get("LLORCH_ADDRESS") or DEFAULT_ADDRESS, port)
    return Connection(complete, token or variables.get("LLORCH_API_TOKEN") or None).now(env)


def _complete(address: str, usual_port: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return f"{address}:{usual_port}"
    if "/" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise invalid_field("address", f"{address!r} is not host:port, e.g. {DEFAULT_ADDRESS}")
    return address
