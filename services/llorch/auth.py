"""Authentication of callers: bearer tokens, and the trust that callers of this machine get where no token is set."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

from llorch.errors import Reason, Unauthenticated
from llorch.identifiers import secret_token, token_fingerprint
from llorch.ports import is_loopback_host

AUTHORIZATION = "authorization"
CLIENT_CLASS = "x-llorch-client"
"""Set by the gateway about its own peer: `remote` or `loopback`."""

_OF_THIS_MACHINE = "loopback"
_FORWARDING_PREFIX = "x-forwarded"
_FORWARDING_HEADERS = frozenset(
    {
        "cdn-loop",
        "cf-connecting-ip",
        "client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded",
        "forwarded-for",
        "proxy-client-ip",
        "true-client-ip",
        "via",
        "wl-proxy-client-ip",
        "x-azure-clientip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-original-forwarded-for",
        "x-original-host",
        "x-originating-ip",
        "x-proxyuser-ip",
        "x-real-ip",
        "x-real-port",
        "x-remote-addr",
        "x-remote-ip",
    }
)

APP_KEY_PREFIX = "llorch-"
"""The prefix of keys of apps, so that scanners for leaked secrets recognise one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`name` is what logs and records show: `localhost`, `token:<6 hex>` or `app:<name>`; never a token.

    `app` is empty for callers that are no app. `methods` are all it may call, as `/<service>/<method>`; None = all.
    `otherwise` says what to show for a call that it may not make.
    """

    name: str
    app: str = ""
    methods: frozenset[str] | None = None
    otherwise: str = field(default="use the token of this server's operator", compare=False)

    def may_call(self, method: str) -> bool:
        return self.methods is None or method in self.methods


LOCALHOST = Identity("localhost")


class Authenticator(Protocol):
    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        """The identity of the caller. `peer` is gRPC's form, e.g. `ipv4:127.0.0.1:5000`. Raises Unauthenticated."""
        ...


class BearerAuth:
    """One token, which every caller shows; one on this machine too, since behind a reverse proxy all clients are there.

    Without a token, callers of this machine are let in, and no others. With `optional`, callers of this machine need
    not show it. A token that is shown has to be right.
    """

    def __init__(self, token: str | None, *, optional: bool = False) -> None:
        self._token = token or None
        self._identity = Identity(token_fingerprint(token)) if token else LOCALHOST
        self._optional = optional

    @property
    def what_to_show(self) -> str:
        """To be let in, for one who has shown something else."""
        if self._token is None:
            return "leave the key out: this server has no token, and lets in its operator from its own machine"
        return "show the token of this server's operator instead of the key"

    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        shown = bearer_token(metadata)
        is_needed = self._token is not None and not (self._optional and shown is None)
        if not is_needed and is_of_this_machine(metadata, peer):
            return LOCALHOST
        if self._token is None:
            raise Unauthenticated(
                Reason.TOKEN_MISSING,
                "this server has no token set and so accepts callers from its own machine only, and none for whom a "
                "proxy says that it forwards; set its token, and show it",
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


def is_of_this_machine(metadata: Mapping[str, str], peer: str) -> bool:
    """Whether a call comes from this machine, as far as one can tell: its peer is on loopback, is no gateway that calls
    for a client elsewhere (`x-llorch-client`), and no proxy that says that it forwards.
    """
    return (
        is_loopback(peer)
        and metadata.get(CLIENT_CLASS, _OF_THIS_MACHINE) == _OF_THIS_MACHINE
        and not is_forwarded(metadata)
    )


def is_forwarded(names: Iterable[str]) -> bool:
    """Whether headers, by their names in lower case, are of a proxy that forwards for a client, who may be anywhere."""
    return any(name in _FORWARDING_HEADERS or name.startswith(_FORWARDING_PREFIX) for name in names)


def is_loopback(peer: str) -> bool:
    """Whether a gRPC peer (`ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`, `unix:…`) is on this machine."""
    family, _, address = peer.partition(":")
    if family == "unix":
        return True
    if family == "ipv4":
        return address.startswith("127.")
    host = unquote(address).rpartition(":")[0].strip("[]")
    return family == "ipv6" and is_loopback_host(host)
