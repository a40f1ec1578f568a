"""The listener for scrapers: what slow and foreign clients can't do to it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from llorch import metrics_server
from llorch.metrics_server import MOST_CONNECTIONS, MetricsServer
from llorch.ports import PortTaken

TOKEN = "a-token-of-the-operator"


@asynccontextmanager
async def serving(bind: str = "127.0.0.1:0", *, ports: int = 1, **options: Any) -> AsyncIterator[str]:
    server = MetricsServer(bind, CollectorRegistry(), **options)
    address = server.start(ports)
    try:
        yield address
    finally:
        await asyncio.to_thread(server.stop)


async def status(address: str, **headers: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://{address}/metrics", headers=headers)).status_code


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield connection


async def closed(connection: socket.socket) -> float:
    """Waits until the other side has closed it; the seconds that took."""
    begin = time.monotonic()
    with ExitStack() as ignored:
        ignored.callback(connection.close)
        try:
            while await asyncio.to_thread(connection.recv, 4096):
                pass
        except ConnectionResetError:
            pass
    return time.monotonic() - begin


async def test_idle_connections_keep_no_scraper_out_and_do_not_stay() -> None:
    async with serving() as address:
        with ExitStack() as opened:
            idle = [opened.enter_context(connected(address)) for _ in range(4 * MOST_CONNECTIONS)]
            begin = time.monotonic()
            assert await status(address) == 200
            assert time.monotonic() - begin < 2
            for connection in idle[: 3 * MOST_CONNECTIONS]:
                assert await closed(connection) < 2, "the oldest give way"


async def test_a_request_that_is_never_finished_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "ANSWERED_WITHIN_S", 0.5)
    async with serving() as address:
        with connected(address) as slow:
            assert await _cut_off_after(slow) < 5
        assert await status(address) == 200


async def _cut_off_after(slow: socket.socket) -> float:
    """Sends one header after the other until the other side has had enough; the seconds that took."""
    begin = time.monotonic()
    slow.sendall(b"GET /metrics HTTP/1.1\r\n")
    while time.monotonic() - begin < 10:
        try:
            slow.sendall(b"X: y\r\n")
        except OSError:
            break
        await asyncio.sleep(0.05)  # the pace of the slow client
    return time.monotonic() - begin


async def test_a_page_whose_name_was_pointed_here_reads_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving() as address:
        port = address.rpartition(":")[2]
        for host, answer in (
            (f"127.0.0.1:{port}", 200),
            (f"localhost:{port}", 200),
            ("[::1]", 200),
            (f"evil.example:{port}", 403),
            ("evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.", 200),
            ("", 403),
            ("a b", 403),
        ):
            assert await status(address, Host=host) == answer, host
    async with serving(token=TOKEN) as address:
        assert await status(address, Host="brain.example") == 401
        assert await status(address, Host="brain.example", Authorization=f"Bearer {TOKEN}") == 200
    assert capfd.readouterr().err == ""


async def test_several_share_a_range_of_ports() -> None:
    async with AsyncExitStack() as opened:
        first = await opened.enter_async_context(serving())
        # The neighbours of a free port may be held by other programs of this machine.
        others = [await opened.enter_async_context(serving(first, ports=100)) for _ in range(2)]
        assert len({first, *others}) == 3
        for address in (first, *others):
            assert await status(address) == 200
        with pytest.raises(PortTaken):
            MetricsServer(first, CollectorRegistry()).start()


async def test_a_page_that_can_not_be_made_now_is_told_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    def late() -> bytes:
        raise TimeoutError

    pages = {"/targets": lambda: b"[]", "/late": late}
    async with serving(pages=pages) as address, httpx.AsyncClient(trust_env=False) as http:
        found = await http.get(f"http://{address}/targets")
        assert (found.json(), found.headers["content-type"]) == ([], "application/json")
        assert (await http.get(f"http://{address}/late")).status_code == 503
    assert capfd.readouterr().err == ""
