"""More clients connect at once than there are places."""

import asyncio
import contextlib
import socket
import time

import pytest

from gatewayd.exchange import Exchange
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.server import HttpServer
from gatewayd.http.stream import RequestHead, Stream

from .raw_http import read_answer

PLACES = 64
COME = 3 * PLACES


async def ended(client: socket.socket) -> None:
    client.setblocking(False)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


@pytest.mark.parametrize("it_comes", ["before the rush", "at the head of the rush"])
async def test_a_request_that_waits_to_be_let_in_outlasts_clients_that_ask_for_nothing(it_comes: str) -> None:
    asked, let_in = asyncio.Event(), asyncio.Event()

    async def answer(head: RequestHead, stream: Stream) -> None:
        asked.set()
        await let_in.wait()
        Exchange(head, stream).answer(200, "text/plain", b"in")

    server = HttpServer("127.0.0.1:0", PLACES, PLACES, LimitLog(time.monotonic))
    host, port = server.listen().split(":")
    closing = asyncio.Event()
    serving = asyncio.create_task(server.serve(answer, closing, 1))
    try:
        with contextlib.ExitStack() as clients:
            newcomer = clients.enter_context(socket.create_connection((host, int(port))))
            newcomer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(5):
                if it_comes == "before the rush":
                    await asked.wait()
                rush = [clients.enter_context(socket.create_connection((host, int(port)))) for _ in range(COME)]
                await asyncio.gather(asked.wait(), *(ended(client) for client in rush[: COME - PLACES + 1]))
                let_in.set()
                newcomer.setblocking(False)
                reader, writer = await asyncio.open_connection(sock=newcomer)
                assert await read_answer(reader) == (200, b"in")
                writer.transport.abort()
    finally:
        closing.set()
        await serving
        server.close()
