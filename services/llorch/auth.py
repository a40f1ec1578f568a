"""Authentication of callers: bearer tokens, and the trust that a loopback peer gets by default."""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from llorch.errors import FailedPrecondition, Reason, Unauthenticated
from llorch.identifiers import secret_token, token_fingerprint

AUTHORIZATION = "authorization"
CLIENT_CLASS = "x-llorch-client"
"""Set by the gateway about its own peer: `remote` or `loopback`."""


APP_KEY_PREFIX = "llorch-"
"""The prefix of keys of apps, so that scanners for leaked secrets recognise one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`name` is what logs and records show: `localhost`, `token:<6 hex>` or `app:<name>`; never a token.

    `app` is empty for callers that are no app. `methods` are all it may call, as `/<service>/<method>`; None = all.
    """

    name: str
    app: str = ""
    methods: frozenset[str] | None = None

    def may_call(self, method: str) -> bool:
        return self.methods is None or method in self.methods


LOCALHOST = Identity("localhost")


class Authenticator(Protocol):
    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        """The identity of the caller. `peer` is gRPC's form, e.g. `ipv4:127.0.0.1:5000`. Raises Unauthenticated."""
        ...


class BearerAuth:
    """One token for all callers that are not on this machine.

    With `loopback_bypass` a loopback peer needs no token, unless its metadata says that it calls for a remote client
    (`x-llorch-client: remote`); a token that it shows all the same must be right.
    """

    def __init__(self, token: str | None, loopback_bypass: bool = True) -> None:
        self._token = token
        self._identity = Identity(token_fingerprint(token)) if token else LOCALHOST
        self._loopback_bypass = loopback_bypass

    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        shown = bearer_token(metadata)
        trusted = self._loopback_bypass and metadata.get(CLIENT_CLASS) != "remote" and is_loopback(peer)
        if trusted and (shown is None or self._token is None):
            return LOCALHOST
        if self._token is None:
            raise Unauthenticated(
                Reason.TOKEN_MISSING,
                "this server has no token set and so accepts callers from its own machine only",
            )
        if shown is None:
            raise Unauthenticated(Reason.TOKEN_MISSING, "a bearer token is needed: authorization: Bearer <token>")
        if not same_token(shown, self._token):
            raise Unauthenticated(Reason.TOKEN_INVALID, "the bearer token is not the one that this server expects")
        return self._identity


def bearer_token(metadata: Mapping[str, str]) -> str | None:
    """The token of an `authorization: Bearer …` entry, or None."""
    scheme, _, token = metadata.get(AUTHORIZATION, "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def new_app_key() -> str:
    return f"{APP_KEY_PREFIX}{secret_token()}"


def is_app_key(token: str) -> bool:
    """Whether it looks like the key of an app. Whether it is one, only the orchestrator knows."""
    return token.startswith(APP_KEY_PREFIX)


def key_hash(key: str) -> str:
    """The stored form of a key. A key has 256 random bits, too many to find it by trying; no salt is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def same_token(shown: str, expected: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(shown.encode(), expected.encode())


def is_loopback(peer: str) -> bool:
    """Whether a gRPC peer (`ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`, `unix:…`) is on this machine."""
    family, _, address = peer.partition(":")
    if family == "unix":
        return True
    if family == "ipv4":
        return address.startswith("127.")
    host = unquote(address).rpartition(":")[0].strip("[]")
    return family == "ipv6" and _is_loopback_address(host)


def refuse_open_bind(bind: str, token: str | None) -> None:
    """Refuses to listen beyond this machine without a token. `bind` is `host:port`."""
    host = bind.rpartition(":")[0].strip("[]")
    if token or host == "localhost" or _is_loopback_address(host):
        return
    raise FailedPrecondition(
        Reason.TOKEN_MISSING,
        f"bind {bind} can be reached from other machines, but no token is set; set one (--token, or `token` "
        f"in the settings file), or bind to 127.0.0.1",
    )


def _is_loopback_address(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
