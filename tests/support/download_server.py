"""A server of files over TLS that does what a test says, down to single bytes; and an internet of nothing but it."""

import asyncio
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256

import httpcore2
import trustme

from pool_managerd.models.download.connection import AsyncioBackend
from pool_managerd.models.download.network import Network, resolve
from pool_managerd.models.download.policy import Address

PUBLIC = "93.184.216.34"
"""Stands for this server in the internet of tests."""
OTHER_PUBLIC = "93.184.216.35"

HOSTS = ("files.example.org", "cdn.example.net", "huggingface.co", "nas.lan", "localhost")


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]

    @property
    def host(self) -> str:
        return self.headers.get("host", "").partition(":")[0]

    @property
    def offset(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class DownloadServer:
    """`answers` by path; `requests` in the order in which they came."""

    authority: trustme.CA
    address: tuple[str, int] = ("", 0)
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    _talks: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str, host: str = HOSTS[0]) -> str:
        return f"https://{host}{path}"

    def serve(self, path: str, content: bytes, **options: object) -> "ServedFile":
        file = ServedFile(content, **options)  # type: ignore[arg-type]  # the test knows the fields
        self.answers[path] = file
        return file

    def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def close(self) -> None:
        """Ends the answers that would go on for ever."""
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, TimeoutError):
            request = _parse(await reader.readuntil(b"\r\n\r\n"))
            self.requests.append(request)
            answer = self.answers.get(request.path.partition("?")[0], _not_found)
            await answer(request, writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@dataclass
class ServedFile:
    """A file with an ETag and ranges, as a good server has it. `cuts`: after so many bytes of the body each connection
    breaks, one after the other; then they go through.
    """

    content: bytes
    etag: str = '"v1"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    piece: int = 2**20

    @property
    def sha256(self) -> str:
        return sha256(self.content).hexdigest()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        offset = request.offset if self.ranges and request.headers.get("if-range", self.etag) == self.etag else 0
        body = self.content[offset:]
        headers = {"Content-Length": str(len(body))}
        if self.etag:
            headers["ETag"] = self.etag
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{len(self.content) - 1}/{len(self.content)}"
        writer.write(head(206 if offset else 200, headers))
        end = self.cuts.pop(0) if self.cuts else len(body)
        for start in range(0, min(end, len(body)), self.piece):
            writer.write(body[start : min(start + self.piece, end)])
            await writer.drain()
        if end < len(body):
            writer.transport.abort()


def head(status: int, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> bytes:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def raw(answer: bytes) -> Answer:
    """These bytes, then the end."""

    async def send(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return send


def redirect(target: str, status: int = 302) -> Answer:
    return raw(head(status, {"Location": target, "Content-Length": "0"}))


async def _not_found(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(head(404, {"Content-Length": "0"}))


def _parse(text: bytes) -> Request:
    first, *lines = text.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return Request(first.split(" ")[1], {name.lower(): value.strip() for name, _, value in pairs})


@asynccontextmanager
async def download_server(*, certificate_for: Sequence[str] = HOSTS) -> AsyncIterator[DownloadServer]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*certificate_for, PUBLIC, "127.0.0.1").configure_cert(context)
    made = DownloadServer(authority)
    running = await asyncio.start_server(made.handle, "127.0.0.1", 0, ssl=context)
    made.address = running.sockets[0].getsockname()[:2]
    try:
        yield made
    finally:
        running.close()
        await made.close()
        await running.wait_closed()


class Internet(httpcore2.AsyncNetworkBackend):
    """Names and addresses as a test says; both public addresses lead to the server, all others would lead inside.

    `names` has the answers to one lookup after the other; the last one stays. `dialled` is where connections went.
    """

    def __init__(self, server: DownloadServer, names: Mapping[str, Sequence[Sequence[str]]] | None = None) -> None:
        self._server = server
        self._names: dict[str, list[Sequence[str]]] = {host: [(PUBLIC,)] for host in HOSTS}
        self._names["localhost"] = [("127.0.0.1",)]
        self._names.update((host, list(answers)) for host, answers in (names or {}).items())
        self._real = AsyncioBackend()
        self.dialled: list[tuple[str, int]] = []

    @property
    def reached_inside(self) -> bool:
        return any(address not in (PUBLIC, OTHER_PUBLIC) for address, _ in self.dialled)

    def network(self) -> Network:
        trusted = ssl.create_default_context()
        self._server.authority.configure_trust(trusted)
        return Network(trusted, dial=self, resolve=self.resolve)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        if host[0].isdigit() or ":" in host:  # 127.1 is an address, too, to the system
            return await resolve(host, port)
        answers = self._names.get(host, [[]])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(address) for address in found]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.dialled.append((host, port))
        return await self._real.connect_tcp(*self._server.address, timeout, local_address, socket_options)
