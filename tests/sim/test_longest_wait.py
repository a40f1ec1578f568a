"""However others flood, a task whose turn it is waits for its model as long as it may, and no longer."""

import pytest

from support.simulation import traces

pytestmark = [pytest.mark.quality, pytest.mark.req("ORCH-1003")]


@pytest.mark.parametrize("seed", range(8))
def test_a_calm_app_beside_floods_waits_no_longer_than_it_may(seed: int) -> None:
    trace = traces.flooded(seed)
    waits = traces.lived(trace).waited_s(lambda arrival: arrival.app in traces.CALM)
    assert len(waits) == sum(arrival.app in traces.CALM for arrival in trace.work)
    assert max(waits) <= traces.longest_wait_s(trace)


def test_first_come_first_served_keeps_it_waiting_for_longer() -> None:
    """So the formula is no matter of course."""
    trace = traces.flooded(2)
    waits = traces.lived(trace, by_peer=True).waited_s(lambda arrival: arrival.app in traces.CALM)
    assert max(waits) > traces.longest_wait_s(trace)
