"""The rate of a worker's tokens: that of the last second in which it worked, and none when it rests."""

import pytest

from support.manual_clock import ManualClock
from worker_orcd.token_rate import TokenRate


def step(rate: TokenRate, clock: ManualClock, *, tokens: range, apart_s: float) -> None:
    for count in tokens:
        rate.observe(count)
        clock.advance(apart_s)


@pytest.mark.parametrize("waited_s", [0.0, 3.0])
def test_the_rate_is_true_within_a_second_of_the_first_tokens(waited_s: float) -> None:
    clock = ManualClock()
    rate = TokenRate(clock)
    rate.rest(0)
    clock.advance(waited_s)
    rate.observe(0)  # the run has begun, and its prompt is evaluated
    clock.advance(waited_s)
    step(rate, clock, tokens=range(1, 8), apart_s=0.05)
    assert rate.per_second == pytest.approx(20.0)


def test_it_forgets_what_is_older_than_a_second() -> None:
    clock = ManualClock()
    rate = TokenRate(clock)
    step(rate, clock, tokens=range(1, 200), apart_s=0.01)
    step(rate, clock, tokens=range(200, 230), apart_s=0.05)
    assert rate.per_second == pytest.approx(20.0)


def test_a_slow_engine_has_a_rate_too() -> None:
    clock = ManualClock()
    rate = TokenRate(clock)
    step(rate, clock, tokens=range(1, 6), apart_s=2.0)
    assert rate.per_second == pytest.approx(0.5)


def test_it_falls_while_no_token_comes() -> None:
    clock = ManualClock()
    rate = TokenRate(clock)
    step(rate, clock, tokens=range(1, 41), apart_s=0.05)
    clock.advance(10)
    assert 0 < rate.per_second < 2.1


def test_there_is_none_at_rest_and_the_next_run_has_nothing_of_it() -> None:
    clock = ManualClock()
    rate = TokenRate(clock)
    step(rate, clock, tokens=range(1, 41), apart_s=0.05)
    rate.rest(40)
    assert rate.per_second == 0
    clock.advance(30)
    step(rate, clock, tokens=range(41, 61), apart_s=0.1)
    assert rate.per_second == pytest.approx(10.0)


def test_fast_steps_cost_few_observations() -> None:
    clock = ManualClock()
    rate = TokenRate(clock)
    step(rate, clock, tokens=range(1, 20_000), apart_s=0.0005)
    assert rate.per_second == pytest.approx(2000.0, rel=0.01)
    assert len(rate._seen) < 30
