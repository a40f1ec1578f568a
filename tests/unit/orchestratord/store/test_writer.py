"""When callers hear that what they asked for is committed, and when the database is tidied up."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from llorch.errors import Reason, Unavailable
from orchestratord.store import writer
from orchestratord.store.writer import GROUPS_UNTIDIED, Operation, TidyUp, Writer

WITHIN_S = 5.0


def nothing(_: Connection) -> None: ...


def bad(_: Connection) -> None:
    raise ValueError("no such thing")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(
        f"sqlite:///{tmp_path / 'any.db'}", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    yield made
    made.dispose()


@asynccontextmanager
async def writing(engine: Engine, tidy_up: TidyUp | None = None) -> AsyncIterator[Writer]:
    made = Writer(engine, tidy_up)
    async with asyncio.timeout(WITHIN_S):
        yield made
        await made.close()


@pytest.fixture
def disk(engine: Engine) -> "Disk":
    return Disk(engine)


class Disk:
    """While a commit is `held`, it waits for the disk."""

    def __init__(self, engine: Engine) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.waits = threading.Event()
        event.listen(engine, "commit", self._commit)

    def _commit(self, _: Connection) -> None:
        self.waits.set()
        assert self.goes_on.wait(WITHIN_S)

    def hold(self) -> None:
        self.waits.clear()
        self.goes_on.clear()

    async def until_it_is_waited_for(self) -> None:
        assert await asyncio.to_thread(self.waits.wait, WITHIN_S)


@pytest.mark.parametrize("others", [0, 1])
async def test_what_is_committed_is_told_while_the_next_group_waits_for_the_disk(
    engine: Engine, disk: Disk, others: int
) -> None:
    order: list[str] = []

    def hold(_: Connection) -> None:
        order.append("the next group")
        disk.hold()

    async with writing(engine) as made:
        disk.hold()
        first = asyncio.create_task(made.write(nothing))
        await disk.until_it_is_waited_for()
        first.add_done_callback(lambda _: order.append("told"))
        next_group = asyncio.gather(made.write(hold), *(made.write(nothing) for _ in range(others)))
        await asyncio.sleep(0)
        disk.goes_on.set()
        await first
        assert order == ["the next group", "told"]
        assert not next_group.done()
        disk.goes_on.set()
        await next_group


async def test_what_is_committed_is_told_before_a_large_group_is_written(engine: Engine, disk: Disk) -> None:
    goes_on = threading.Event()
    async with writing(engine) as made:
        disk.hold()
        first = asyncio.create_task(made.write(nothing))
        await disk.until_it_is_waited_for()
        large = asyncio.create_task(made.write(lambda _: goes_on.wait(WITHIN_S), size=2**20))
        await asyncio.sleep(0)
        disk.goes_on.set()
        await first
        goes_on.set()
        assert await large


async def test_what_is_committed_is_told_where_the_next_transaction_can_not_begin(engine: Engine, disk: Disk) -> None:
    async with writing(engine) as made:
        disk.hold()
        first = asyncio.create_task(made.write(nothing))
        await disk.until_it_is_waited_for()
        refused = asyncio.create_task(made.write(nothing))
        await asyncio.sleep(0)
        event.listen(engine, "begin", locked)
        disk.goes_on.set()
        await first
        with pytest.raises(Unavailable) as failed:
            await refused
        assert failed.value.reason is Reason.STORE_FAILED
        event.remove(engine, "begin", locked)
        await made.write(nothing)


def locked(_: Connection) -> None:
    raise OperationalError("BEGIN", None, sqlite3.OperationalError("database is locked"))


@pytest.mark.parametrize("operations", [1, 3])
async def test_what_is_committed_is_told_where_all_that_comes_next_fails(
    engine: Engine, disk: Disk, operations: int
) -> None:
    async with writing(engine) as made:
        disk.hold()
        first = asyncio.create_task(made.write(nothing))
        await disk.until_it_is_waited_for()
        failing = asyncio.gather(*(made.write(bad) for _ in range(operations)), return_exceptions=True)
        await asyncio.sleep(0)
        disk.goes_on.set()
        await first
        assert [type(outcome) for outcome in await failing] == [ValueError] * operations


async def test_what_comes_while_a_group_is_carried_out_shares_its_commit_once(engine: Engine) -> None:
    commits: list[Connection] = []
    event.listen(engine, "commit", commits.append)
    async with writing(engine) as made:
        third = AskingFor(made, nothing)
        second = AskingFor(made, third)
        first = AskingFor(made, second)
        await made.write(first)
        await asyncio.gather(first.asked, second.asked, third.asked)
        assert len(commits) == 2, "of the first with the second, and of the third with the last"


async def test_what_joins_a_group_and_fails_fails_alone(engine: Engine) -> None:
    async with writing(engine) as made:
        first = AskingFor(made, bad)
        await made.write(first)
        with pytest.raises(ValueError, match="no such thing"):
            await first.asked


class AskingFor:
    """An operation that asks for the next one while it is carried out, the first time."""

    def __init__(self, made: Writer, next_one: Operation) -> None:
        self.next_one = next_one
        self.asked: asyncio.Future[None]
        self._made = made
        self._has_asked = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, _: Connection) -> None:
        if not self._has_asked.is_set():
            self._loop.call_soon_threadsafe(self._ask)
            assert self._has_asked.wait(WITHIN_S)

    def _ask(self) -> None:
        self.asked = asyncio.ensure_future(self._made.write(self.next_one))
        self._loop.call_soon(self._has_asked.set)


async def test_the_database_is_tidied_up_now_and_then_while_there_is_always_something_to_write(engine: Engine) -> None:
    groups, tidied = 200, list[int]()

    def tidy_up(_: Engine, groups: int) -> bool:
        tidied.append(groups)
        return True

    async with writing(engine, tidy_up) as made:
        await always_writing(made, 2 * groups, size=0)
        assert max(tidied) == GROUPS_UNTIDIED
        assert sum(tidied) >= groups - GROUPS_UNTIDIED


async def test_the_database_is_tidied_up_after_as_many_bytes_as_a_group_may_have(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LARGEST_GROUP_BYTES", 100)
    tidied: list[int] = []

    def tidy_up(_: Engine, groups: int) -> bool:
        tidied.append(groups)
        return False

    async with writing(engine, tidy_up) as made:
        await always_writing(made, 60, size=30)
        assert max(tidied) == 2


async def always_writing(made: Writer, operations: int, size: int) -> None:
    """Each operation asks for the next one, so that there is no pause: two are a group, for one joins."""
    numbers, loop = count(1), asyncio.get_running_loop()
    written: list[asyncio.Future[None]] = []
    is_over = asyncio.Event()

    def ask(operation: Callable[[Connection], None]) -> None:
        written.append(asyncio.ensure_future(made.write(operation, size)))

    def one(_: Connection) -> None:
        if next(numbers) >= operations:
            loop.call_soon_threadsafe(is_over.set)
            return
        asked = threading.Event()
        loop.call_soon_threadsafe(ask, one)
        loop.call_soon_threadsafe(loop.call_soon, asked.set)
        assert asked.wait(WITHIN_S)

    ask(one)
    await is_over.wait()
    await asyncio.gather(*written)
