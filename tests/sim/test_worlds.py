"""The brain in small data centres where things go wrong, in virtual time. A failure names the seed that replays it:
`cd tests && python -m support.simulation SEED --tell`.
"""

import os
from typing import get_args

import pytest

from orchestratord.core import effects
from orchestratord.simulation.violation import Violation
from orchestratord.simulation.world import ONLY_TOLD, PERFORMED
from support.simulation.plan import draw
from support.simulation.world import World

WORLDS = int(os.environ.get("LLORCH_SIM_WORLDS", "2000"))
PER_TEST = 10


@pytest.mark.req("TEST-7002", "ORCH-1003", "ORCH-1004", "ORCH-1010", "ORCH-1012", "ORCH-1014", "ORCH-1015")
@pytest.mark.parametrize("first", range(0, WORLDS, PER_TEST))
def test_nothing_that_must_hold_is_violated(first: int) -> None:
    violations = []
    for seed in range(first, min(first + PER_TEST, WORLDS)):
        try:
            World(draw(seed)).run()
        except Violation as error:
            violations.append(str(error))
    assert not violations


OF_A_RESTART = frozenset({effects.AdoptRun, effects.BeginAnew, effects.OpenFoundLog})
"""What only an orchestrator that is started again wants; `test_restarts` has worlds of that kind."""


def test_the_world_knows_what_to_do_about_every_effect() -> None:
    known = PERFORMED | ONLY_TOLD | OF_A_RESTART
    assert {kind.__name__ for kind in get_args(effects.Effect)} == {kind.__name__ for kind in known}
