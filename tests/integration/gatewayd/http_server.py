"""The gateway's HTTP server, with a door of the test's own behind it."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gatewayd.http.limit_log import LimitLog
from gatewayd.http.server import HttpServer
from gatewayd.http.stream import Serve


@asynccontextmanager
async def http_server(
    answer: Serve, *, places: int = 10, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[HttpServer, str]]:
    """With its address."""
    server = HttpServer("127.0.0.1:0", places, places, LimitLog(time.monotonic), tls)
    address, closing = server.listen(), asyncio.Event()
    serving = asyncio.create_task(server.serve(answer, closing, 1))
    try:
        yield server, address
    finally:
        closing.set()
        await serving
        server.close()
