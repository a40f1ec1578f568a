"""Many connections ask for a lot at once: how much of it is under way, and whose is the next."""

import asyncio
import gc
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import hpack
import pytest

from gatewayd.http import limits
from gatewayd.http.connection import Connection
from gatewayd.http.stream import RequestHead, Stream
from support.door_attacks import PREFACE, frame

from .test_connection import connect, receive, shared

ASKS = 90
TAKEN_BACK = "/taken-back"
TURNS_FOR_ALL = 400


def named(path: str, method: str = "GET") -> list[tuple[str, str]]:
    return [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]


class Timer:
    def __init__(self, step: Callable[..., None], *given: object) -> None:
        self._step: Callable[[], None] | None = partial(step, *given)

    def cancel(self) -> None:
        self._step = None

    def fire(self) -> None:
        if self._step is not None:
            self._step()


class Clock:
    """Timers that fire when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._timers: list[Timer] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self._call_later)

    def _call_later(self, _seconds: float, step: Callable[..., None], *given: object) -> Timer:
        self._timers.append(Timer(step, *given))
        return self._timers[-1]

    def pass_time(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.fire()


class Door:
    """Requests whose answers begin when the test says so."""

    def __init__(self) -> None:
        self.under_way: deque[tuple[str, asyncio.Event]] = deque()
        self.answered: list[str] = []
        self._shared = shared(self._serve)

    async def _serve(self, head: RequestHead, stream: Stream) -> None:
        begins = asyncio.Event()
        self.under_way.append((head.raw_path, begins))
        await begins.wait()
        stream.start(200, [])
        self.answered.append(head.raw_path)
        stream.end()

    @contextmanager
    def client(self, *paths: str, method: str = "GET") -> Iterator[Connection]:
        """Asks for these; of those named `TAKEN_BACK` it resets each at once, and they are no reads."""
        connection, _ = connect(self._shared)
        encoder = hpack.Encoder()
        asked = b""
        for number, path in enumerate(paths):
            stream = 2 * number + 1
            head = named(path, "POST" if path == TAKEN_BACK else method)
            asked += frame(1, 5, stream, encoder.encode(head))
            if path == TAKEN_BACK:
                asked += frame(3, 0, stream, (8).to_bytes(4))
        receive(connection, PREFACE + frame(4, 0, 0) + asked)
        try:
            yield connection
        finally:
            connection.connection_lost(None)

    def answer_one(self, path: str | None = None) -> None:
        at = 0 if path is None else [one for one, _ in self.under_way].index(path)
        self.under_way[at][1].set()
        del self.under_way[at]

    def of(self, path: str) -> int:
        return Counter(one for one, _ in self.under_way)[path]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_one_connection_has_a_few() -> None:
    for method in ("GET", "HEAD"):
        door = Door()
        with door.client(*["/a"] * ASKS, method=method):
            for _ in range(ASKS):
                await turns(10 if door.answered else TURNS_FOR_ALL)
                assert len(door.under_way) == min(limits.READS_OF_ONE, ASKS - len(door.answered))
                door.answer_one()
            await turns(10)
            assert len(door.answered) == ASKS
        await turns(10)


async def test_what_is_taken_back_lets_nothing_behind_it_begin() -> None:
    door = Door()
    with door.client(*["/a"] * (limits.READS_OF_ONE + 1), *[TAKEN_BACK, "/a"] * 20):
        await turns(TURNS_FOR_ALL)
        for _ in range(limits.READS_OF_ONE + 1 + 20):
            assert 0 < len(door.under_way) <= limits.READS_OF_ONE
            door.answer_one()
            await turns(10)
        assert set(door.answered) == {"/a"}
    await turns(10)


async def test_many_connections_have_not_much_more_than_a_few_do_and_each_has_its_share() -> None:
    door = Door()
    names = [f"/{number}" for number in range(12)]
    with _clients(door, *([name] * ASKS for name in names)):
        await turns(TURNS_FOR_ALL)
        for _ in range(len(names) * ASKS):
            assert 0 < len(door.under_way) <= limits.READS_OF_ALL + len(names)
            door.answer_one()
            await turns(10)
        assert len(door.answered) == len(names) * ASKS
        half = Counter(door.answered[: len(door.answered) // 2])
        assert max(half.values()) <= 1.2 * min(half.values()), half
    await turns(10)


async def test_the_first_of_a_connection_waits_for_no_other_connection() -> None:
    door = Door()
    crowd = [f"/{number}" for number in range(6)]
    with _clients(door, *([name] * ASKS for name in crowd)):
        await turns(TURNS_FOR_ALL)
        with door.client("/newcomer"):
            await turns(20)
            assert door.of("/newcomer") == 1
    await turns(10)


async def test_a_slow_answer_keeps_nothing_behind_it_once_there_are_places() -> None:
    door = Door()
    with _clients(door, *([f"/{number}"] * ASKS for number in range(6))):
        await turns(TURNS_FOR_ALL)
        with door.client("/slow", "/fast"):
            await turns(20)
            assert (door.of("/slow"), door.of("/fast")) == (1, 0)
            for number in range(limits.READS_OF_ALL):
                door.answer_one(f"/{number % 6}")
                await turns(10)
            assert (door.of("/slow"), door.of("/fast")) == (1, 1)
    await turns(10)


async def test_reads_that_take_long_keep_no_other_connection_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of event streams that have nothing to say yet."""
    clock, door = Clock(monkeypatch), Door()
    with _clients(door, *([f"/{number}"] * ASKS for number in range(3))):
        await turns(TURNS_FOR_ALL)
        with door.client("/other", "/other"):
            await turns(20)
            assert door.of("/other") == 1
            clock.pass_time()
            await turns(TURNS_FOR_ALL)
            assert door.of("/other") == 2
        assert [door.of(f"/{number}") for number in range(3)] == [limits.READS_OF_ONE] * 3
        for _ in range(len(door.under_way)):
            door.answer_one()
        await turns(TURNS_FOR_ALL)
        assert limits.READS_OF_ALL <= len(door.under_way) <= limits.READS_OF_ALL + 5
    await turns(10)


async def test_few_requests_begin_in_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TURN_S", 5)
    door = Door()
    with _clients(door, *([f"/{number}"] for number in range(5 * limits.BEGINS_PER_TURN))):
        for _ in range(20):
            before = len(door.under_way)
            await turns(1)
            assert len(door.under_way) - before <= limits.BEGINS_PER_TURN
        assert len(door.under_way) == 5 * limits.BEGINS_PER_TURN
    await turns(10)


async def test_places_of_lost_connections_are_taken_by_those_that_wait() -> None:
    door = Door()
    with door.client(*["/stays"] * ASKS):
        with _clients(door, *([f"/{number}"] * ASKS for number in range(12))):
            await turns(TURNS_FOR_ALL)
            while door.of("/stays") > 1:
                door.answer_one("/stays")
            assert door.of("/stays") == 1
        await turns(TURNS_FOR_ALL)
        assert door.of("/stays") == limits.READS_OF_ONE
    await turns(10)


async def test_a_read_that_takes_long_holds_up_nothing_of_its_own_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, door = Clock(monkeypatch), Door()
    with door.client("/quiet") as client:
        await turns(20)
        clock.pass_time()
        with _clients(door, *([f"/{number}"] for number in range(limits.READS_OF_ALL))):
            await turns(TURNS_FOR_ALL)
            ask_again = frame(1, 5, 3, hpack.Encoder().encode(named("/next")))
            receive(client, ask_again)
            await turns(20)
            assert (door.of("/quiet"), door.of("/next")) == (1, 1)
    await turns(10)


async def test_connections_that_go_on_sending_do_not_pass_those_that_wait() -> None:
    ping = frame(6, 0, 0, bytes(8))
    door = Door()
    with _clients(door, *([f"/{number}"] * ASKS for number in range(8))) as crowd:
        await turns(TURNS_FOR_ALL)
        with door.client(*["/waits"] * ASKS):
            await turns(20)
            for number in range(60):
                door.answer_one(f"/{number % 8}")
                for _ in range(3):
                    for client in crowd:
                        receive(client, ping)
                    await turns(1)
            assert door.of("/waits") >= limits.READS_OF_ALL // 8
    await turns(10)


async def test_a_lost_connection_waits_for_nothing() -> None:
    door = Door()
    with _clients(door, *([f"/{number}"] for number in range(limits.READS_OF_ALL))):
        await turns(TURNS_FOR_ALL)
        with door.client("/a", "/a") as client:
            await turns(20)
        await turns(10)
        lost = weakref.ref(client)
        del client
        gc.collect()
        assert lost() is None
    await turns(10)


@contextmanager
def _clients(door: Door, *paths: list[str]) -> Iterator[list[Connection]]:
    with ExitStack() as clients:
        yield [clients.enter_context(door.client(*each)) for each in paths]
