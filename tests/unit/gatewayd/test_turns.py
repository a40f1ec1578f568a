"""A client that asks a lot at once has no other one wait for all of it."""

import asyncio
from collections.abc import Callable

from gatewayd.http import limits
from gatewayd.http.turns import Turns


class Asker:
    """Each of its steps takes a quarter of a turn, or what `pass_time` makes of it."""

    def __init__(self, name: str, steps: int, taken: list[str], pass_time: Callable[[float], None]) -> None:
        self._name = name
        self._left = steps
        self._taken = taken
        self._pass_time = pass_time

    def take_step(self) -> bool:
        self._left -= 1
        self._taken.append(self._name)
        self._pass_time(limits.TURN_S / 4)
        return self._left > 0


async def test_steps_are_taken_of_one_connection_after_the_other_and_for_a_short_time() -> None:
    taken: list[str] = []
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    turns = Turns(lambda: now)
    turns.ask(Asker("flood", 100, taken, pass_time))
    turns.ask(Asker("flood too", 100, taken, pass_time))
    await asyncio.sleep(0)
    assert taken == ["flood", "flood too"] * 2
    turns.ask(Asker("newcomer", 1, taken, pass_time))
    await asyncio.sleep(0)
    assert "newcomer" in taken[4:7]
    for _ in range(100):
        await asyncio.sleep(0)
    assert (taken.count("flood"), taken.count("flood too"), taken.count("newcomer")) == (100, 100, 1)


async def test_few_requests_begin_in_one_turn() -> None:
    """What each of them takes comes after the turn."""
    taken: list[str] = []
    turns = Turns(lambda: 0.0)
    turns.ask(Asker("begins", 3 * limits.BEGINS_PER_TURN, taken, lambda _: turns.begin()))
    for turn in range(1, 4):
        await asyncio.sleep(0)
        assert len(taken) == turn * limits.BEGINS_PER_TURN


async def test_steps_that_begin_nothing_are_bound_by_their_time_alone() -> None:
    taken: list[str] = []
    turns = Turns(lambda: 0.0)
    turns.ask(Asker("reads", 10 * limits.BEGINS_PER_TURN, taken, lambda _: None))
    await asyncio.sleep(0)
    assert len(taken) == 10 * limits.BEGINS_PER_TURN
