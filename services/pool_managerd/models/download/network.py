"""Connections that go where they were checked to go: the name is looked up once, here, and that address is dialled."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import httpcore2

from llorch.errors import LlorchError, Reason, Unavailable, invalid_field
from pool_managerd.models.download.connection import AsyncioBackend
from pool_managerd.models.download.policy import Address

CheckAddresses = Callable[[str, Sequence[Address]], None]
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """All addresses of a host, in the system's order. Raises `Unavailable` where it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise _unreachable(f"{host} has no address; is its name right, and is this machine online?") from None
    # An address of this link only carries its interface behind a %, which is no part of the address.
    texts = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
    return [ipaddress.ip_address(text) for text in texts]


class Network:
    """How this host reaches others. `dial` and `resolve` are the operating system's but in tests."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        dial: httpcore2.AsyncNetworkBackend | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._tls = tls
        self._dial = dial or AsyncioBackend()
        self._resolve = resolve

    def pool(self, check: CheckAddresses) -> httpcore2.AsyncConnectionPool:
        """For one request: nothing of it is left for another."""
        backend = _CheckedBackend(self._dial, self._resolve, check)
        return httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, max_connections=1, max_keepalive_connections=0, network_backend=backend
        )


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The system's certificate authorities, and those of `ca_file`."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file.expanduser())
        except (OSError, ssl.SSLError) as error:
            raise invalid_field("download_ca_file", f"{ca_file} can't be read as certificates: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """TLS still verifies the name: httpcore's pool does that, and does not know the address."""

    def __init__(self, dial: httpcore2.AsyncNetworkBackend, resolve: Resolve, check: CheckAddresses) -> None:
        self._dial = dial
        self._resolve = resolve
        self._check = check

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        self._check(host, addresses)
        problem: LlorchError = _unreachable(f"{host} has no address")
        for address in addresses:
            try:
                return await self._dial.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                problem = _unreachable(f"{host} can't be reached; is this machine online?")
        raise problem


def _unreachable(message: str) -> Unavailable:
    return Unavailable(Reason.UPSTREAM_UNAVAILABLE, message)
