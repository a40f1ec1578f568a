"""How well the brain decides, in virtual time: the same on every machine."""

import statistics

import pytest

from support.simulation import scenarios

pytestmark = pytest.mark.quality


@pytest.mark.req("ORCH-1003")
def test_a_flood_from_one_app_at_most_doubles_the_wait_of_another() -> None:
    alone, beside = scenarios.wait_beside(flood=False), scenarios.wait_beside(flood=True)
    assert beside <= 2 * alone, f"{alone:.2f} s alone, {beside:.2f} s beside the flood"


@pytest.mark.req("ORCH-1003")
def test_apps_get_shares_of_all_devices_by_their_weights_whatever_one_of_them_floods() -> None:
    for app, share in scenarios.shares(seed=2).items():
        assert share == pytest.approx(scenarios.WEIGHTS[app], abs=0.02), app


@pytest.mark.req("ORCH-1024")
def test_a_question_waits_for_no_batch_work_and_all_of_that_is_done() -> None:
    """Of the same model; of another one, it waits for a load, unless batch work has been passed over for too long."""
    same, other = scenarios.beside_batch("a"), scenarios.beside_batch("b")
    assert max(same.waited_s) <= 1
    assert statistics.median(other.waited_s) <= other.load_s + 2
    assert same.batch_done == other.batch_done == scenarios.NIGHT_TASKS


@pytest.mark.req("ORCH-1015")
def test_agents_among_six_models_cause_fewer_loads_than_by_lru_or_by_idle_time() -> None:
    by_cost = scenarios.swapping(scenarios.BY_COST)
    others = [scenarios.swapping(scenarios.LEAST_RECENTLY_USED), scenarios.swapping(scenarios.IDLE_FOR_A_WHILE)]
    assert by_cost.loads_per_1000 < min(other.loads_per_1000 for other in others), (by_cost, others)


@pytest.mark.req("ORCH-1016")
def test_predictions_come_true() -> None:
    judged = scenarios.predictions()
    assert len(judged.errors) > 200
    assert judged.median_error <= 0.25, f"{judged.median_error:.0%} off"
    assert judged.brier < judged.brier_of_base_rate
