"""Watchers of the state: told of what differs, all by one look, and not too many of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest

from llorch.errors import Reason, ResourceExhausted
from orchestratord.core import events
from orchestratord.core.brain import Brain
from orchestratord.core.state import BrainConfig
from orchestratord.runtime import state_changes
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.state_changes import Look, StateChanges
from support.manual_clock import ManualClock


class Watched:
    """A state that is a number; `times` is what of it makes no difference."""

    def __init__(self) -> None:
        self.content = 1
        self.looks = 0
        self.owner = BrainOwner(Brain(BrainConfig(), str), ManualClock())
        self.owner.connect(lambda _effect: None)
        self.changes = StateChanges(self.owner, self._look)

    def _look(self) -> Look:
        self.looks += 1
        return Look(self.content, f"{self.content} at {self.looks}".encode())

    def happens(self) -> None:
        self.owner.post(events.ReaderLeft("nothing knows this task"))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_changes, "AT_MOST_EVERY_S", 0.0)
    monkeypatch.setattr(state_changes, "AT_LEAST_EVERY_S", 0.01)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with asyncio.timeout(10):
        yield Watched()


async def test_the_state_is_looked_at_also_where_nothing_is_told(soon: None, watched: Watched) -> None:
    """A load that a tick gives up has no effects, and without a node there are no other events: `llorch load` hung."""
    async with aclosing(watched.changes.follow("a")) as states:
        assert (await anext(states)).startswith(b"1 ")
        watched.content = 2
        assert (await anext(states)).startswith(b"2 ")


async def test_what_is_only_later_is_not_told(soon: None, watched: Watched) -> None:
    async with aclosing(watched.changes.follow("a")) as states:
        await anext(states)
        following = asyncio.ensure_future(anext(states))
        while watched.looks < 5:
            await asyncio.sleep(0.001)
        assert not following.done()
        watched.content = 2
        assert (await following).startswith(b"2 ")


async def test_all_watchers_are_told_by_one_look(watched: Watched) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(watched.changes.follow("a"))) for _ in range(20)]
        for states in streams:
            await anext(states)
        assert watched.looks == 1
        watched.content = 2
        watched.happens()
        told = await asyncio.gather(*[anext(states) for states in streams])
        assert set(told) == {b"2 at 2"}


async def test_a_newcomer_sees_what_has_happened_and_the_others_are_told(watched: Watched) -> None:
    async with aclosing(watched.changes.follow("a")) as first, aclosing(watched.changes.follow("b")) as second:
        await anext(first)
        watched.content = 2
        watched.happens()
        assert (await anext(second)).startswith(b"2 ")
        assert (await anext(first)).startswith(b"2 ")


async def test_watchers_are_bounded_by_connection_and_in_all(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_changes, "MOST_ON_A_CONNECTION", 2)
    monkeypatch.setattr(state_changes, "MOST_WATCHERS", 3)
    async with AsyncExitStack() as stack:
        for connection in ("a", "a", "b"):
            await anext(await stack.enter_async_context(aclosing(watched.changes.follow(connection))))
        for connection, words in (("a", "this connection"), ("c", "3 streams")):
            with pytest.raises(ResourceExhausted, match=words) as refused:
                await anext(watched.changes.follow(connection))
            assert refused.value.reason is Reason.TOO_MANY_CALLS
    async with aclosing(watched.changes.follow("a")) as states:
        await anext(states)


async def test_a_connection_that_clients_share_is_bounded_in_all_only(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_changes, "MOST_ON_A_CONNECTION", 1)
    monkeypatch.setattr(state_changes, "MOST_WATCHERS", 3)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await anext(await stack.enter_async_context(aclosing(watched.changes.follow(None))))
        with pytest.raises(ResourceExhausted, match="3 streams watch the state already"):
            await anext(watched.changes.follow(None))


async def test_nothing_is_left_when_the_last_watcher_leaves(watched: Watched) -> None:
    async with aclosing(watched.changes.follow("a")) as states:
        await anext(states)
    watched.happens()
    assert watched.looks == 1
    assert watched.changes._next is None
