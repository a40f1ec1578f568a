"""A client that asks a lot at once has no other one wait for all of it."""

import asyncio

from gatewayd.http import limits
from gatewayd.http.turns import Turns


class Asker:
    def __init__(self, name: str, requests: int, begun: list[str]) -> None:
        self._name = name
        self._left = requests
        self._begun = begun

    def take_step(self) -> bool:
        self._left -= 1
        self._begun.append(self._name)
        return self._left > 0


async def test_requests_begin_of_one_connection_after_the_other_and_a_few_at_a_time() -> None:
    begun: list[str] = []
    turns = Turns()
    turns.ask(Asker("flood", 100, begun))
    turns.ask(Asker("flood too", 100, begun))
    await asyncio.sleep(0)
    assert len(begun) == limits.STEPS_PER_TURN
    turns.ask(Asker("newcomer", 1, begun))
    await asyncio.sleep(0)
    assert begun.index("newcomer") < limits.STEPS_PER_TURN + 3
    for _ in range(200):
        await asyncio.sleep(0)
    assert (begun.count("flood"), begun.count("flood too"), begun.count("newcomer")) == (100, 100, 1)
