"""The HTTP server: hypercorn's protocols on a socket and on connections that are ours.

hypercorn speaks HTTP/1.1 and HTTP/2 on each connection. Its own `serve` is not used, because it can neither
bound the connections nor end one whose client takes nothing: docs/adr/0003-http-server.md.
"""

import asyncio
import logging
import socket
from typing import cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from gatewayd.door import Door
from llorch.exception_groups import root_of
from llorch.logs import get_logger
from llorch.ports import PortTaken, ensure_free, join_address, resolve_bind, split_address

UNREAD_MS = 30_000
"""A client that takes nothing for so long is disconnected by the kernel."""

IDLE_S = 30.0
"""Between requests, and for the whole head of a request: one that trickles in is given up."""

_HEADER_BYTES = 32 * 1024
_BACKLOG = 512
# Time that a connection has to end after it was aborted.
_ABORT_S = 1.0
_log = get_logger("http")


class HttpServer:
    def __init__(self, bind: str, max_connections: int) -> None:
        host, self._port = split_address(bind)
        self._host = resolve_bind(host)
        self._max_connections = max_connections
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._listener: socket.socket | None = None

    def listen(self) -> str:
        """Takes the port and returns `host:port`. Raises PortTaken, which names the holder."""
        ensure_free(self._host, self._port)
        listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit these from the socket that accepts them.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
            listener.bind((self._host, self._port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise PortTaken(self._host, self._port) from error
        self._listener = listener
        host, port, *_ = listener.getsockname()
        return join_address(host, port)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def serve(self, door: Door, closing: asyncio.Event, grace_s: float) -> None:
        """Until `closing` is set; then nothing new is accepted, and what runs has `grace_s` to end."""
        context = WorkerContext(max_requests=None)
        application = ASGIWrapper(cast("ASGIFramework", door))
        config = _config()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._connections) >= self._max_connections:
                writer.transport.abort()
                return
            loop = asyncio.get_running_loop()
            await self._follow(TCPServer(application, loop, config, context, {}, reader, writer), writer)

        server = await asyncio.start_server(connected, sock=self._listener, backlog=_BACKLOG)
        try:
            await closing.wait()
        finally:
            server.close()
            await context.terminated.set()
            await self._end_connections(grace_s)

    async def _follow(self, connection: TCPServer, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection runs in a task")
        self._connections[task] = writer
        try:
            await connection
        except Exception as error:  # noqa: BLE001  # the failure of one connection must not reach others
            # Clients that vanish are normal.
            log = _log.debug if isinstance(root_of(error), OSError) else _log.warning
            log("connection_failed", exc_info=root_of(error))
        finally:
            del self._connections[task]

    async def _end_connections(self, grace_s: float) -> None:
        """Aborts what does not end: a client that reads nothing would otherwise keep the gateway from ending."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace_s)
        unfinished = dict(self._connections)
        for task, writer in unfinished.items():
            writer.transport.abort()
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=_ABORT_S)


def _config() -> Config:
    config = Config()
    config.keep_alive_timeout = IDLE_S
    config.h11_max_incomplete_size = _HEADER_BYTES
    config.h2_max_header_list_size = _HEADER_BYTES
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = _server_log()
    return config


def _server_log() -> logging.Logger:
    """The log of hypercorn goes where all lines of this daemon go."""
    logger = logging.Logger("hypercorn", logging.WARNING)
    logger.addHandler(_ToOurLog())
    return logger


class _ToOurLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        _log.warning("http_server", message=record.getMessage(), exc_info=error)
