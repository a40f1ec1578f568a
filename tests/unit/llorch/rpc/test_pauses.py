"""How long clients wait that lost their server; the loop's clock and its sleep are the test's."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from llorch.rpc.pauses import Pauses


class Time:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()

    class Loop:
        def time(self) -> float:
            return time.now

    monkeypatch.setattr(asyncio, "sleep", time.sleep)
    monkeypatch.setattr(asyncio, "get_running_loop", Loop)
    return time


def all_of(within_s: float, asked_for_ms: int | None = None) -> None:
    async def wait() -> None:
        waited = Pauses(within_s)
        while await waited.wait(asked_for_ms):
            pass

    run(wait())


def run(work: Coroutine[Any, Any, None]) -> None:
    """Nothing in it waits for anything."""
    with pytest.raises(StopIteration):
        work.send(None)


def test_they_begin_short_get_longer_and_end_in_time(time: Time) -> None:
    all_of(within_s=30)
    assert 0.05 <= time.slept[0] <= 0.1
    assert all(pause <= 1.0 for pause in time.slept)
    assert max(time.slept) > 0.5
    assert sum(time.slept) == pytest.approx(30)


def test_there_are_none_without_time(time: Time) -> None:
    all_of(within_s=0)
    assert time.slept == []


def test_the_server_may_ask_for_longer_ones_but_not_for_long_ones(time: Time) -> None:
    all_of(within_s=2, asked_for_ms=400)
    assert 0.4 <= time.slept[0] <= 0.5
    time.slept.clear()
    all_of(within_s=5, asked_for_ms=60_000)
    assert time.slept[0] == 1.0


def test_they_start_over_where_something_came(time: Time) -> None:
    async def wait() -> None:
        waited = Pauses(1.0)
        for _ in range(20):
            assert await waited.wait()
            waited.start_over()
            assert waited.over_at is None

    run(wait())
    assert all(pause <= 0.1 for pause in time.slept)
