"""The HTTP server, embedded: hypercorn in our own event loop, on a socket that we bind ourselves.

Why this one, and what its settings are for: docs/adr/0003-http-server.md.
"""

import asyncio
import logging
import socket
from typing import Any, cast

from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from gatewayd.door import Door
from llorch.logs import get_logger
from llorch.ports import PortTaken, ensure_free, join_address, resolve_bind, split_address

_HEADER_BYTES = 32 * 1024
# Between requests, and for the whole head of a request: one that trickles in is given up.
_IDLE_S = 30.0
# A client that is connected and takes nothing. The kernel resets the connection; nobody has to notice.
_UNREAD_MS = 30_000
_BACKLOG = 512
_log = get_logger("http")


class HttpServer:
    def __init__(self, bind: str, unread_ms: int = _UNREAD_MS) -> None:
        host, self._port = split_address(bind)
        self._host = resolve_bind(host)
        self._unread_ms = unread_ms
        self._socket: socket.socket | None = None

    def listen(self) -> str:
        """Takes the port and returns `host:port`. Raises PortTaken, which names the holder."""
        ensure_free(self._host, self._port)
        listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit these from the socket that accepts them.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unread_ms)
            listener.bind((self._host, self._port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise PortTaken(self._host, self._port) from error
        listener.setblocking(False)
        self._socket = listener
        host, port, *_ = listener.getsockname()
        return join_address(host, port)

    async def serve(self, door: Door, closing: asyncio.Event, grace_s: float) -> None:
        """Until `closing` is set; then nothing new is accepted, and what runs has `grace_s` to end."""
        if self._socket is None:
            raise RuntimeError("listen before you serve")
        config = _config(self._socket.detach(), grace_s)
        await serve(cast("ASGIFramework", door), config, shutdown_trigger=_trigger(closing), mode="asgi")


def _trigger(closing: asyncio.Event) -> Any:
    async def wait_closing() -> None:
        await closing.wait()

    return wait_closing


def _config(file_descriptor: int, grace_s: float) -> Config:
    config = Config()
    config.bind = [f"fd://{file_descriptor}"]
    config.backlog = _BACKLOG
    config.graceful_timeout = grace_s
    config.keep_alive_timeout = _IDLE_S
    config.h11_max_incomplete_size = _HEADER_BYTES
    config.h2_max_header_list_size = _HEADER_BYTES
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = _server_log()
    return config


def _server_log() -> logging.Logger:
    """What the server itself has to say goes where everything goes."""
    logger = logging.Logger("hypercorn", logging.WARNING)
    logger.addHandler(_ToOurLog())
    return logger


class _ToOurLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        _log.warning("http_server", message=record.getMessage(), exc_info=error)
