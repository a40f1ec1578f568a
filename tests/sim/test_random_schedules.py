"""The brain under anything that may happen, in virtual time. A failure names the seed that replays it."""

import os

import pytest

from support.random_world import RandomWorld

SEEDS = int(os.environ.get("LLORCH_SIM_SEEDS", "100"))
STEPS = 400


@pytest.mark.req("TEST-7002", "ORCH-1004", "ORCH-1010", "ORCH-1014")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_nothing_is_lost_counted_twice_or_left_waiting(seed: int) -> None:
    world = RandomWorld(seed)
    for _ in range(STEPS):
        world.step()
    world.settle()
    state = world.driver.state
    waiting = [task.task_id for task in state.tasks.values() if not task.is_finished]
    assert not waiting, f"these tasks never ended: {waiting}; loads: {state.loads}"
    assert all(world.streams.values()), "a finished task has not shown its terminal"
    assert not state.attempts
