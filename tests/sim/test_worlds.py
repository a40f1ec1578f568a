"""The brain in small data centres where things go wrong, in virtual time. A failure names the seed that replays it:
`cd tests && python -m support.simulation SEED --tell`.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from orchestratord.core import effects
from support.simulation.plan import draw
from support.simulation.violation import Violation
from support.simulation.world import ONLY_TOLD, PERFORMED, World

WORLDS = int(os.environ.get("LLORCH_SIM_WORLDS", "2000"))
PER_TEST = 50
TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.req("TEST-7002", "ORCH-1003", "ORCH-1004", "ORCH-1010", "ORCH-1012", "ORCH-1014", "ORCH-1015")
@pytest.mark.parametrize("first", range(0, WORLDS, PER_TEST))
def test_nothing_that_must_hold_is_violated(first: int) -> None:
    violations = []
    for seed in range(first, min(first + PER_TEST, WORLDS)):
        try:
            World(draw(seed)).run()
        except Violation as violation:
            violations.append(str(violation))
    assert not violations


def test_the_world_knows_what_to_do_about_every_effect() -> None:
    known = PERFORMED | ONLY_TOLD
    assert {kind.__name__ for kind in get_args(effects.Effect)} == {kind.__name__ for kind in known}


def test_equal_seeds_give_equal_runs_in_any_process() -> None:
    """Also where hashes of strings, and so the order of sets, differ."""
    assert _digests("1") == _digests("2")


def test_another_seed_gives_another_run() -> None:
    digests = _digests("1").splitlines()
    assert len(set(digests)) == len(digests) > 1


def _digests(hash_seed: str) -> str:
    command = [sys.executable, "-m", "support.simulation", "0-8", "--digest"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout
