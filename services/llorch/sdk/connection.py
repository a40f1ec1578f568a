"""Where the orchestrator is, and what to show it: argument > environment > default."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from llorch.errors import invalid_field

DEFAULT_ADDRESS = "127.0.0.1:8090"
_DEFAULT_PORT = DEFAULT_ADDRESS.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Connection:
    """`address` is `host:port`."""

    address: str
    token: str | None = field(default=None, repr=False)


def find_connection(
    address: str | None = None, token: str | None = None, env: Mapping[str, str] | None = None
) -> Connection:
    """Reads LLORCH_ADDRESS and LLORCH_API_TOKEN for what is not given. A host alone gets the usual port."""
    variables = os.environ if env is None else env
    where = address or variables.get("LLORCH_ADDRESS") or DEFAULT_ADDRESS
    return Connection(_complete(where), token or variables.get("LLORCH_API_TOKEN") or None)


def _complete(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return f"{address}:{_DEFAULT_PORT}"
    if "/" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise invalid_field("address", f"{address!r} is not host:port, e.g. {DEFAULT_ADDRESS}")
    return address
