"""The same days for the brain and for its peer: first come, first served, and the least recently used model leaves.

`make bench-brain` has these figures over more seeds.
"""

import statistics
from functools import partial

import pytest

from support.simulation import traces

pytestmark = pytest.mark.quality


def both(trace: traces.Trace) -> tuple[traces.Lived, traces.Lived]:
    """The brain's and the peer's; each has answered all."""
    brain, peer = traces.lived(trace), traces.lived(trace, by_peer=True)
    assert brain.unanswered == peer.unanswered == 0
    assert len(brain.done) == len(peer.done) == len(trace.work)
    return brain, peer


@pytest.mark.req("ORCH-1015")
@pytest.mark.parametrize("seed", [1, 2])
def test_answers_are_there_sooner_where_twelve_models_share_four_cards(seed: int) -> None:
    brain, peer = both(traces.mixed(seed, per_s=0.6, lasts_s=1800.0))
    assert brain.mean_s < peer.mean_s


@pytest.mark.req("ORCH-1015")
@pytest.mark.parametrize(("drifts", "part"), [(False, 0.8), (True, 0.95)])
def test_models_are_loaded_less_often(drifts: bool, part: float) -> None:
    """Where other models are asked for of a sudden, that has to be learnt first."""
    brain, peer = both(traces.now_and_then(3, count=1000, every_s=20.0, steep=1.0, drifts=drifts, at_home=True))
    assert brain.loads_per_1000 <= part * peer.loads_per_1000
    assert brain.mean_s < peer.mean_s


@pytest.mark.req("ORCH-1003")
def test_two_models_that_do_not_fit_together_take_turns_that_last() -> None:
    brain, peer = both(traces.two_large(1))
    assert brain.mean_s < 0.95 * peer.mean_s


@pytest.mark.req("ORCH-1003")
def test_a_flood_of_any_model_keeps_other_apps_waiting_for_a_moment() -> None:
    of_calm = partial(traces.calm_apps, 2, at_home=True, lasts_s=900.0)
    alone, beside = (
        statistics.median(traces.lived(of_calm(flood=flood)).waited_s(lambda arrival: arrival.app in traces.CALM))
        for flood in (False, True)
    )
    assert beside <= alone + 3


@pytest.mark.req("ORCH-1003")
def test_a_model_that_needs_the_whole_card_starts_beside_small_ones() -> None:
    lived = traces.lived(traces.large_beside_small(1))
    waits = lived.waited_s(lambda arrival: arrival.model == traces.LARGE)
    assert len(waits) == 20
    assert statistics.mean(waits) <= 45
    assert max(waits) <= 70
