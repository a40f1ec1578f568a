"""More clients connect at once than there are places."""

import asyncio
import contextlib
import socket
import subprocess
import sys

import pytest

from gatewayd.exchange import Exchange
from gatewayd.http.stream import RequestHead, Stream

from .http_server import http_server
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

    async with http_server(answer, places=PLACES) as (_, address):
        with contextlib.ExitStack() as clients:

            def connect() -> socket.socket:
                host, port = address.split(":")
                return clients.enter_context(socket.create_connection((host, int(port))))

            newcomer = connect()
            newcomer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(5):
                if it_comes == "before the rush":
                    await asked.wait()
                rush = [connect() for _ in range(COME)]
                await asyncio.gather(asked.wait(), *(ended(client) for client in rush[: COME - PLACES + 1]))
                let_in.set()
                newcomer.setblocking(False)
                reader, writer = await asyncio.open_connection(sock=newcomer)
                assert await read_answer(reader) == (200, b"in")
                writer.transport.abort()


def test_the_table_of_files_does_not_grow_while_clients_come() -> None:
    """It takes a process with threads 20 ms each time. A process of its own, since the table never shrinks."""
    listens = """
import time
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.server import HttpServer
HttpServer("127.0.0.1:0", 700, 700, LimitLog(time.monotonic)).listen()
print(open("/proc/self/status").read())
"""
    told = subprocess.run([sys.executable, "-c", listens], capture_output=True, text=True, check=True, timeout=30)
    size = next(line for line in told.stdout.splitlines() if line.startswith("FDSize:"))
    assert int(size.split()[1]) > 700
