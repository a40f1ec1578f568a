"""Which requests are admitted: host names of this gateway, pages of other origins, and tokens.

Everything is checked for every request, whatever its path and method; what is open is listed in the door.
"""

import re
import socket
from collections.abc import Iterable, Mapping

from gatewayd.exchange import Exchange
from gatewayd.token_mismatch import tokens_differ
from llorch.auth import (
    AUTHORIZATION,
    CLIENT_CLASS,
    BearerAuth,
    Identity,
    bearer_token,
    is_app_key,
    is_forwarded,
    is_loopback,
    same_token,
)
from llorch.errors import InvalidArgument, LlorchError, PermissionDenied, Reason, Unauthenticated
from llorch.host_name import host_name, is_numeric_host
from llorch.identifiers import token_fingerprint
from llorch.ports import join_address

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class HostGuard:
    """Against DNS rebinding and foreign pages: browsers may talk to the gateway only under one of its own names.

    An address is no name that an attacker could point here, so numeric hosts are always fine.
    """

    def __init__(self, bind_host: str, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> None:
        machine = socket.gethostname().lower()
        short = machine.partition(".")[0]
        own = {"localhost", bind_host.lower(), machine, short, f"{short}.local"}
        self._hosts = own | {host.lower().rstrip(".") for host in allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}

    def check(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        name = host_name(host)
        if name is None:
            raise InvalidArgument(
                Reason.MALFORMED_REQUEST, "the request has no valid Host header; send one, NAME or NAME:PORT"
            )
        if name not in self._hosts and not is_numeric_host(name):
            raise PermissionDenied(
                Reason.NOT_PERMITTED,
                f"this gateway does not answer to the name {name}; allow it with --allowed-host {name}",
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(origin.lower(), host.lower()):
            raise PermissionDenied(
                Reason.NOT_PERMITTED,
                f"pages of {origin} may not use this gateway; allow them with --allowed-origin {origin}",
            )

    def _is_ours(self, origin: str, host: str) -> bool:
        return origin in self._origins or origin in (f"http://{host}", f"https://{host}")


class ClientCheck:
    """Checks tokens, and makes the metadata that tells the orchestrator about the client."""

    def __init__(self, token: str | None, *, optional: bool = False) -> None:
        self._token = token
        self._auth = BearerAuth(token, optional=optional)

    def admit(self, exchange: Exchange) -> tuple[Identity, tuple[tuple[str, str], ...]]:
        """The client's identity, and the metadata with which to call the orchestrator on its behalf.

        For a client that needs no token here, and shows none, the channel's own token is used. Only the orchestrator
        knows the keys of apps; the gateway forwards them with every call.
        """
        peer = peer_of(exchange.client)
        client_class = "loopback" if is_loopback(peer) and not is_forwarded(exchange.headers) else "remote"
        shown = _shown_token(exchange.headers)
        metadata = {CLIENT_CLASS: client_class, **({AUTHORIZATION: f"Bearer {shown}"} if shown else {})}
        if shown is not None and is_app_key(shown):
            return Identity(token_fingerprint(shown)), tuple(metadata.items())
        return self._auth.authenticate(metadata, peer), tuple(metadata.items())

    def is_unchecked(self, exchange: Exchange) -> bool:
        """Whether the client shows what only the orchestrator can tell from a made-up key."""
        shown = _shown_token(exchange.headers)
        return shown is not None and is_app_key(shown) and not (self._token and same_token(shown, self._token))

    def to_client(self, exchange: Exchange, refusal: Unauthenticated) -> LlorchError:
        """What to answer where the orchestrator refused a client that was admitted here: its fault only if it showed a
        key or a token that this gateway could not check.
        """
        if self._token is None:
            return refusal
        if self.is_unchecked(exchange):
            return refusal
        return tokens_differ(refusal, shows_token=True)


def peer_of(client: tuple[str, int] | None) -> str:
    """A client's address in gRPC's form, e.g. `ipv4:127.0.0.1:5000`."""
    if client is None:
        return "unknown"
    host, port = client
    return f"{'ipv6' if ':' in host else 'ipv4'}:{join_address(host, port)}"


def _shown_token(headers: Mapping[str, str]) -> str | None:
    shown = bearer_token(headers)
    if shown is not None and _TOKEN.fullmatch(shown) is None:
        raise Unauthenticated(Reason.TOKEN_INVALID, "the bearer token has characters that no token has")
    return shown
