"""Ten thousand of each kind come and go: models, nodes, workers, apps, sessions, rules, tasks, drains and devices.

So many by `make chaos-long`, a tenth of that by `make chaos` and in the suite.
"""

from collections.abc import Callable

import pytest

from support import chaos_count
from support.collections_in import grown
from support.short_lives import BOUNDS, LIVES, ShortLives

FIRST = 20
LIVES_OF_A_KIND = chaos_count.of_long(10_000)


@pytest.mark.timeout(120 + LIVES_OF_A_KIND / 10)
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_ten_thousand_that_are_gone_leave_nothing(life: Callable[[ShortLives, int], None]) -> None:
    brain = ShortLives()
    brain.live(life, range(FIRST))
    brain.settle()
    before = brain.sizes()
    brain.live(life, range(FIRST, FIRST + LIVES_OF_A_KIND))
    brain.settle()
    assert grown(before, brain.sizes(), BOUNDS) == {}
