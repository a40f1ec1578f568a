"""Prometheus metrics over HTTP, on a thread of its own: a scrape never waits for the daemon's loop, nor it for one."""

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from llorch.auth import BearerAuth
from llorch.errors import Unauthenticated
from llorch.ports import ensure_free, join_address, resolve_bind, split_address
from llorch.token_rules import refuse_open_bind

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class MetricsServer:
    """Scrapers show the token as `Authorization: Bearer …`; without one, those of this machine alone are answered."""

    def __init__(
        self, bind: str, registry: CollectorRegistry, token: str | None = None, *, optional: bool = False
    ) -> None:
        refuse_open_bind(bind, token, "metrics_token")
        self._bind = bind
        self._auth = BearerAuth(token, optional=optional)
        self._metrics = make_wsgi_app(registry)
        self._server: WSGIServer | None = None

    def start(self) -> str:
        """The address that was bound."""
        host, port = split_address(self._bind)
        host = resolve_bind(host)
        ensure_free(host, port)
        self._server = make_server(host, port, self._answer, _Server6 if ":" in host else _Server, _Handler)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        return join_address(host, self._server.server_port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in ("/metrics", "/"):
            return _refuse(start_response, "404 Not Found", b"metrics are at /metrics\n")
        try:
            self._auth.authenticate(_headers(environ), _peer(environ))
        except Unauthenticated as error:
            return _refuse(start_response, "401 Unauthorized", f"{error.message}\n".encode())
        metrics: Iterable[bytes] = self._metrics(environ, start_response)
        return metrics


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the base class's question to a name server, which may take its time."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds that a client may take for its request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Scrapes are not logged."""


def _headers(environ: Environ) -> dict[str, str]:
    names = (name for name in environ if name.startswith("HTTP_"))
    return {name.removeprefix("HTTP_").replace("_", "-").lower(): environ[name] for name in names}


def _peer(environ: Environ) -> str:
    """In gRPC's form; the port does not matter."""
    host = environ["REMOTE_ADDR"]
    return f"{'ipv6' if ':' in host else 'ipv4'}:{join_address(host, 0)}"


def _refuse(start_response: StartResponse, status: str, why: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(why)))])
    return [why]
