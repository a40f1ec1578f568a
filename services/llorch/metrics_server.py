"""Prometheus metrics over HTTP, on a thread of its own: a scrape never waits for the daemon's loop, nor it for one.

A connection is for one request, and has ANSWERED_WITHIN_S for it and its answer, however its client spaces them. Beyond
MOST_CONNECTIONS the oldest one gives way: those that are slow lose, not the next scraper.
"""

import errno
import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from llorch.auth import LOCALHOST, BearerAuth
from llorch.errors import LlorchError, Unauthenticated
from llorch.host_name import host_name, is_numeric_host
from llorch.ports import PortTaken, ensure_free, join_address, resolve_bind, split_address
from llorch.token_rules import refuse_open_bind

MOST_CONNECTIONS = 16
"""Scrapers are few, and each takes a thread."""

ANSWERED_WITHIN_S = 10.0
"""Prometheus itself gives up after as long, by default."""

_LOOK_EVERY_S = 0.5

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Page = Callable[[], bytes]
"""JSON, made when it is asked for, on the server's thread. Raises LlorchError or TimeoutError where it can't be."""


class MetricsServer:
    """Scrapers show the token as `Authorization: Bearer …`; without one, those of this machine alone are answered.

    `pages` are answered beside the metrics, by their paths.
    """

    def __init__(
        self,
        bind: str,
        registry: CollectorRegistry,
        token: str | None = None,
        *,
        optional: bool = False,
        pages: Mapping[str, Page] | None = None,
    ) -> None:
        refuse_open_bind(bind, token, "metrics_token")
        self._bind = bind
        self._auth = BearerAuth(token, optional=optional)
        self._metrics = make_wsgi_app(registry)
        self._pages = pages or {}
        self._server: _Server | None = None

    def start(self, ports: int = 1) -> str:
        """The address that was bound: the first that is free of so many ports, from that of `bind` on. Raises
        PortTaken, or what else keeps it from listening.
        """
        host, first = split_address(self._bind)
        host = resolve_bind(host)
        kind = _Server6 if ":" in host else _Server
        for port in range(first, min(first + ports, 65536) if first else 1):
            try:
                self._server = make_server(host, port, self._answer, kind, _Handler)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    ensure_free(host, port)  # says what is wrong
                    raise
        if self._server is None:
            raise PortTaken(host, first)
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(_LOOK_EVERY_S,), name="metrics", daemon=True).start()
        return join_address(host, self._server.server_port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        try:
            identity = self._auth.authenticate(_headers(environ), _peer(environ))
        except Unauthenticated as error:
            return _refuse(start_response, "401 Unauthorized", f"{error.message}\n".encode())
        if identity is LOCALHOST and not self._is_own_name(environ.get("HTTP_HOST")):
            return _refuse(start_response, "403 Forbidden", _OTHER_NAME)
        if page := self._pages.get(path):
            return _json(start_response, page)
        if path not in ("/metrics", "/"):
            known = " and ".join(["/metrics", *self._pages])
            return _refuse(start_response, "404 Not Found", f"here is {known}\n".encode())
        metrics: Iterable[bytes] = self._metrics(environ, start_response)
        return metrics

    def _is_own_name(self, host: str | None) -> bool:
        """Against DNS rebinding: where no token is asked for, a page may have its name lead here. No attacker can have
        an address for a name; and every browser sends the header.
        """
        if host is None:
            return True
        name = host_name(host)
        bound = split_address(self._bind)[0].lower()
        return name is not None and (name in ("localhost", bound) or is_numeric_host(name))


_OTHER_NAME = b"without a token, metrics are answered to this machine, by its address or as localhost\n"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = (
        128  # with the base class's 5, a few that come at once would have to knock again a second later
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._open: dict[socket.socket, float] = {}
        self._turn = threading.Lock()
        super().__init__(*args, **kwargs)

    def server_bind(self) -> None:
        """Without the base class's question to a name server, which may take its time."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._turn:
            leaving = list(self._open)[: len(self._open) - MOST_CONNECTIONS + 1]
            self._open[request] = time.monotonic()
        for connection in leaving:
            self._break(connection)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._turn:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """The base class calls it twice a second, and after each connection."""
        late = time.monotonic() - ANSWERED_WITHIN_S
        with self._turn:
            leaving = [connection for connection, since in self._open.items() if since < late]
        for connection in leaving:
            self._break(connection)

    def server_close(self) -> None:
        super().server_close()
        with self._turn:
            leaving = list(self._open)
        for connection in leaving:
            self._break(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, mostly by `_break`; nothing of that is worth a traceback in the log."""

    def _break(self, connection: socket.socket) -> None:
        """Its thread notices at once, and closes it. It counts no longer: a thread that hangs keeps no scraper out."""
        with self._turn:
            self._open.pop(connection, None)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = ANSWERED_WITHIN_S

    def get_stderr(self) -> Any:
        """The base class would write tracebacks there, also of clients that have gone."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Scrapes are not logged."""


def _headers(environ: Environ) -> dict[str, str]:
    names = (name for name in environ if name.startswith("HTTP_"))
    return {name.removeprefix("HTTP_").replace("_", "-").lower(): environ[name] for name in names}


def _peer(environ: Environ) -> str:
    """In gRPC's form; the port does not matter."""
    host = environ["REMOTE_ADDR"]
    return f"{'ipv6' if ':' in host else 'ipv4'}:{join_address(host, 0)}"


def _json(start_response: StartResponse, page: Page) -> Iterable[bytes]:
    try:
        body = page()
    except (LlorchError, TimeoutError):
        return _refuse(start_response, "503 Service Unavailable", b"not now; ask again\n")
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _refuse(start_response: StartResponse, status: str, why: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(why)))])
    return [why]
