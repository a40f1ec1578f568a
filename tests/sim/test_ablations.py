"""A check that can't fail is none: with a safeguard taken out, the simulation finds the violation within 50 worlds."""

import pytest

from orchestratord.simulation.violation import Violation
from support.simulation.ablations import ABLATIONS, Ablation
from support.simulation.plan import draw
from support.simulation.world import World

pytestmark = pytest.mark.quality
WORLDS = 50


@pytest.mark.req("TEST-7002")
@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda ablation: ablation.safeguard.replace(" ", "_"))
def test_the_simulation_notices_when_a_safeguard_is_out(ablation: Ablation) -> None:
    said = []
    for seed in range(ablation.first_seed, ablation.first_seed + WORLDS):
        world = World(draw(seed))
        try:
            with ablation():
                world.run()
        except Violation as error:
            said.append(str(error))
            if ablation.violates in said[-1]:
                return
        except AssertionError as error:
            said.append(f"seed {seed}: the brain itself stopped: {error}")
            if ablation.violates in said[-1]:
                return
    pytest.fail(f"{WORLDS} worlds without noticing; other violations: {said[:5] or 'none'}")
