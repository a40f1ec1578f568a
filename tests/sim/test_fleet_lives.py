"""Hosts and orchestrators that come and go, in virtual time. A failure names the seed that replays it."""

import os

import pytest

from support.fleet_lives import FleetLives

SEEDS = int(os.environ.get("LLORCH_SIM_SEEDS", "100"))
STEPS = 600


@pytest.mark.req("TEST-7002", "ORCH-1009", "ORCH-1014", "ORCH-1021")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_hosts_and_orchestrators_come_and_go_and_what_was_promised_stays_true(seed: int) -> None:
    lives = FleetLives(seed)
    for _ in range(STEPS):
        lives.step()
