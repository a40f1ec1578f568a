"""Listens, takes connections while there are places for them, and ends them in order."""

import asyncio
import errno
import fcntl
import os
import resource
import socket
import ssl

from gatewayd.http import limits
from gatewayd.http.connection import Connection, Shared
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.places import MAX_CONNECTIONS, Places
from gatewayd.http.reads import Reads
from gatewayd.http.stream import Serve
from gatewayd.http.turns import Turns
from llorch.logs import get_logger
from llorch.ports import PortTaken, ensure_free, join_address, resolve_bind, split_address

_BACKLOG = 4096
"""Connections that wait to be taken. A client beyond it is not heard until it tries again, a second later."""

_TAKEN_PER_TURN = 512
"""Connections that are taken before it is the turn of those that are there: a newcomer is heard only once all that came
before it were taken, 30 µs each, and each turn in between may be long.
"""

_HEARD_AFTER_TURNS = 4
"""A connection is taken in the first of them, and its request has come by the last. Not all places are given away
meanwhile.
"""

_OTHER_FILES = 128
"""Files that the gateway has open beside its connections."""

_TRY_AGAIN_S = 0.1
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ABORT_S = 1.0
"""Time that a connection has to end after it was aborted."""

_log = get_logger("http")


class HttpServer:
    """`tls` makes it HTTPS; HTTP/2 is then agreed on by ALPN, without it by the client's preface."""

    def __init__(
        self,
        bind: str,
        max_connections: int,
        max_per_address: int,
        limit_log: LimitLog,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limit_log = limit_log
        host, self._port = split_address(bind)
        self._host = resolve_bind(host)
        self._most = _affordable(max_connections)
        self._places: Places[Connection] = Places(self._most, max_per_address)
        self._taken_per_turn = max(1, min(_TAKEN_PER_TURN, self._most // _HEARD_AFTER_TURNS))
        self._tls = tls
        self._listener: socket.socket | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    def listen(self) -> str:
        """Takes the port and returns `host:port`. Raises PortTaken, which names the holder."""
        ensure_free(self._host, self._port)
        listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit these from the socket that accepts them.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(limits.STALLED_S * 1000))
            listener.setblocking(False)
            listener.bind((self._host, self._port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise PortTaken(self._host, self._port) from error
        self._listener = listener
        _prepare_files(listener, self._most)
        host, port, *_ = listener.getsockname()
        return join_address(host, port)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def serve(self, door: Serve, closing: asyncio.Event, grace_s: float) -> None:
        """Until `closing` is set; then nothing new is accepted, and what runs has `grace_s` to end."""
        accepting = asyncio.create_task(self._accept(door), name="accept connections")
        looking = asyncio.create_task(self._look(), name="look after connections")
        told = asyncio.create_task(closing.wait(), name="wait for the end")
        try:
            await asyncio.wait({told, accepting, looking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            accepting.cancel()
            await self._end_connections(grace_s)
            looking.cancel()
            await asyncio.wait({told, accepting, looking})
        for task in (accepting, looking):
            if not task.cancelled() and task.exception() is not None:
                raise RuntimeError(f"{task.get_name()} has failed") from task.exception()

    async def _accept(self, door: Serve) -> None:
        if self._listener is None:
            raise RuntimeError("listen first")
        loop = asyncio.get_running_loop()
        turns = Turns()
        shared = Shared(door, self._places.leave, self._limit_log, turns, Reads(turns))
        while True:
            try:
                client, peer = await loop.sock_accept(self._listener)
                self._welcome(client, peer[0], shared)
                for _ in range(self._taken_per_turn - 1):
                    client, peer = self._listener.accept()
                    self._welcome(client, peer[0], shared)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _NO_FILES:
                    _log.warning("no_file_for_a_connection", connections=len(self._places), exc_info=error)
                    self._make_room()
                    await asyncio.sleep(_TRY_AGAIN_S)
            # While clients queue, `sock_accept` does not wait.
            await asyncio.sleep(0)

    def _welcome(self, client: socket.socket, address: str, shared: Shared) -> None:
        refused_by = self._places.refused_by(address)
        if refused_by is not None:
            self._limit_log.reached(refused_by, address, connections=len(self._places))
            client.close()
            return
        self._make_room()
        client.setblocking(False)
        connection = Connection(address, shared)
        self._places.take(connection)
        task = asyncio.create_task(self._connect(client, connection), name="connect a client")
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _make_room(self) -> None:
        leaving = self._places.in_the_way()
        if leaving is not None:
            self._limit_log.reached(MAX_CONNECTIONS, leaving.address, connections=len(self._places))
            self._places.leave(leaving)
            leaving.cancel()

    async def _connect(self, client: socket.socket, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        handshake_s = limits.HANDSHAKE_S if self._tls else None
        try:
            await loop.connect_accepted_socket(
                lambda: connection, client, ssl=self._tls, ssl_handshake_timeout=handshake_s
            )
        except (OSError, TimeoutError) as error:
            _log.debug("not_connected", exc_info=error)
            self._places.leave(connection)
            client.close()
        except BaseException:
            client.close()
            raise

    async def _look(self) -> None:
        """A client that asks for nothing is heard of in no other way."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(limits.LOOK_EVERY_S)
            now = loop.time()
            connections = self._places.all()
            for connection in connections:
                connection.look(now)
            self._bound_unsent(connections, now)

    def _bound_unsent(self, connections: list[Connection], now: float) -> None:
        excess = sum(connection.unsent for connection in connections) - limits.UNSENT_BYTES
        if excess <= 0:
            return
        largest = sorted(connections, key=lambda one: one.unsent, reverse=True)
        standing = [one for one in largest if one.stalled_s(now) >= limits.GIVES_WAY_AFTER_S]
        for connection in dict.fromkeys((*standing, *largest)):
            if excess <= 0:
                return
            self._limit_log.reached("an answer that its client does not take", connection.address)
            excess -= connection.unsent
            connection.cancel()

    async def _end_connections(self, grace_s: float) -> None:
        """Aborts what does not end: a client that reads nothing would otherwise keep the gateway from ending."""
        if self._arriving:
            await asyncio.wait(self._arriving, timeout=_ABORT_S)
        for connection in self._places.all():
            connection.finish()
        await self._wait_lost(grace_s)
        for connection in self._places.all():
            connection.cancel()
        await self._wait_lost(_ABORT_S)

    async def _wait_lost(self, seconds: float) -> None:
        left = {connection.lost for connection in self._places.all()}
        if left:
            await asyncio.wait(left, timeout=seconds)


def _affordable(wanted: int) -> int:
    """As many as this process may open files for; it takes what it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    affordable = max(1, soft - _OTHER_FILES)
    _log.warning("fewer_connections", wanted=wanted, taken=affordable, open_files=soft)
    return affordable


def _prepare_files(any_file: socket.socket, connections: int) -> None:
    """The kernel's table of this process's files doubles when it is full, and a process with threads stands still for
    20 ms meanwhile: it would in a rush of clients.
    """
    os.close(fcntl.fcntl(any_file, fcntl.F_DUPFD_CLOEXEC, connections))
