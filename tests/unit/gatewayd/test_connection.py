"""One connection, by the calls that the event loop makes."""

import asyncio
from itertools import pairwise
from typing import Any

import hpack
import pytest

from gatewayd.exchange import Exchange
from gatewayd.http.connection import Connection, Shared
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.reads import Reads
from gatewayd.http.stream import RequestHead, Serve, Stream
from gatewayd.http.turns import Turns
from support.door_attacks import PREFACE, frame

NAMED = [(":method", "POST"), (":path", "/a"), (":scheme", "http"), (":authority", "localhost")]
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Transport:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed.set()

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed.is_set()

    def get_extra_info(self, _name: str) -> Any:
        return ("127.0.0.1", 5)

    def set_write_buffer_limits(self, _high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def answer(head: RequestHead, stream: Stream) -> None:
    exchange = Exchange(head, stream)
    body = await exchange.read_body(10**6, 5)
    exchange.answer(200, "text/plain", b"%d" % len(body))


def shared(serve: Serve = answer) -> Shared:
    turns = Turns()
    return Shared(serve, lambda _: None, LimitLog(lambda: 0.0), turns, Reads(turns))


def connect(among: Shared | None = None) -> tuple[Connection, Transport]:
    connection = Connection("127.0.0.1", among or shared())
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


def receive(connection: Connection, data: bytes) -> None:
    buffer = connection.get_buffer(0)
    buffer[: len(data)] = data
    connection.buffer_updated(len(data))


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (GET, [b"0"]),
        (GET * 3, [b"0"] * 3),
        (b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n" + b"x" * 3000, [b"3000"]),
    ],
)
async def test_what_came_before_the_client_closed_its_side_is_answered(sent: bytes, answers: list[bytes]) -> None:
    """Though the loop was busy, and heard of both before it read anything."""
    connection, transport = connect()
    receive(connection, sent)
    assert connection.eof_received()
    async with asyncio.timeout(5):
        await transport.is_closed.wait()
    parts = transport.written.split(b"HTTP/1.1 200 ")[1:]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == answers


async def test_a_step_that_fails_ends_its_own_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is taken later, between two requests."""
    connection, transport = connect()
    receive(connection, GET)
    async with asyncio.timeout(5):
        while b"200" not in transport.written:
            await asyncio.sleep(0)

    def fail(_: object) -> None:
        raise AttributeError

    monkeypatch.setattr("gatewayd.http.http1.Http1._advance", fail)
    connection.pause_writing()
    connection.resume_writing()
    async with asyncio.timeout(5):
        await transport.is_closed.wait()


async def steps_for(data: bytes) -> list[int]:
    """How many requests there are after each step of a connection of HTTP/2 that is sent this."""
    connection, _ = connect()
    receive(connection, PREFACE + frame(4, 0, 0) + data)
    counts = [0]
    while connection._unread:
        connection.take_step()
        counts.append(len(connection._tasks) + len(connection._to_serve))
    tasks = list(connection._tasks)
    connection.connection_lost(None)
    await asyncio.gather(*tasks, return_exceptions=True)
    return counts


async def test_many_small_heads_of_http2_are_read_in_small_steps() -> None:
    encoder = hpack.Encoder()
    heads = b"".join(frame(1, 4, 2 * number + 1, encoder.encode(NAMED)) for number in range(90))
    counts = await steps_for(heads)
    assert counts[-1] == 90
    assert max(after - before for before, after in pairwise(counts)) <= 25


async def test_the_inside_of_a_frame_of_http2_is_read_in_large_steps() -> None:
    head = frame(1, 4, 1, hpack.Encoder().encode(NAMED))
    assert len(await steps_for(head + frame(0, 0, 1, bytes(10_000)))) <= 14
