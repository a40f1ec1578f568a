import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.core.learnt.answer_lengths import Answer, Answers
from orchestratord.core.learnt.estimates import Estimate, Learnt, Reliability, Remaining
from orchestratord.core.learnt.rates import Quantity, Rates, Run, device_key

CARD = device_key(["RTX 3090"])


def run(**options: object) -> Run:
    fields: dict[str, object] = {
        "app": "",
        "model": "coder",
        "device": CARD,
        "batch": 1,
        "prompt_tokens_guessed": 100,
        "tokens_in": 100,
        "cached_tokens": 0,
        "tokens_out": 101,
        "choices": 1,
        "was_cut": False,
        "prefill_ms": 50,
        "decode_ms": 2000,
    }
    return Run(**(fields | options))  # type: ignore[arg-type]  # tests name fields


def mean(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.mean


def test_nothing_is_known_of_what_was_never_seen() -> None:
    rates = Rates()
    rates.ran(run())
    assert rates.prefill_ms("writer", CARD, 10) is None
    assert rates.decode_ms("coder", "another card", 1, 10) is None
    assert rates.load_ms("coder", "garage", 4096) is None
    assert rates.holding_ms("coder") is None
    assert rates.answers.lengths("", "writer", None).values == ()
    assert rates.prompt_tokens("writer", 100) == 100


def test_speeds_are_learnt_per_model_and_card() -> None:
    rates = Rates()
    rates.ran(run())
    rates.ran(run(device="GTX 1650", decode_ms=20_000))
    assert mean(rates.decode_ms("coder", CARD, 1, 10)) == 200
    assert mean(rates.decode_ms("coder", "GTX 1650", 1, 10)) == 2000
    assert mean(rates.prefill_ms("coder", CARD, 200)) == 100


def test_between_batches_that_were_seen_the_speed_lies_between() -> None:
    rates = Rates()
    rates.ran(run(batch=1, decode_ms=1000))
    rates.ran(run(batch=5, decode_ms=3000))
    assert [mean(rates.decode_ms("coder", CARD, batch, 1)) for batch in (1, 2, 3, 5, 9)] == [10, 15, 20, 30, 30]


def test_prompts_of_another_size_are_another_matter() -> None:
    rates = Rates()
    rates.ran(run(tokens_in=8, prefill_ms=40))
    rates.ran(run(tokens_in=4000, prefill_ms=4000))
    assert mean(rates.prefill_ms("coder", CARD, 10)) == 50
    assert mean(rates.prefill_ms("coder", CARD, 3000)) == 3000


def test_what_was_cached_cost_no_time() -> None:
    rates = Rates()
    rates.ran(run(tokens_in=1000, cached_tokens=900, prefill_ms=50))
    assert mean(rates.prefill_ms("coder", CARD, 100)) == 50


def test_guesses_at_the_size_of_prompts_are_corrected_per_model() -> None:
    rates = Rates()
    rates.ran(run(prompt_tokens_guessed=100, tokens_in=130))
    assert rates.prompt_tokens("coder", 200) == 260


def test_a_load_takes_as_long_as_before_or_as_its_size_says() -> None:
    rates = Rates()
    rates.loaded("coder", "garage", 4000, took_ms=2000)
    assert mean(rates.load_ms("coder", "garage")) == 2000
    assert mean(rates.load_ms("writer", "garage", 8000)) == 4000
    assert rates.load_ms("writer", "garage") is None
    assert rates.load_ms("writer", "attic", 8000) is None


def test_answers_that_were_cut_off_are_taken_to_go_on() -> None:
    answers = Answers()
    for tokens, was_cut in ((10, False), (50, True), (100, False), (200, False), (300, True)):
        answers.came("", "coder", Answer(tokens, was_cut))
    assert answers.lengths("", "coder", None).values == (10, 100, 150, 200, 300)
    assert answers.lengths("", "coder", 1000).values == (10, 100, 150, 200, 1000)
    assert answers.lengths("", "coder", 120).values == (10, 100, 120, 120, 120)


def test_an_app_that_was_never_answered_is_taken_for_the_others() -> None:
    answers = Answers()
    answers.came("chat", "coder", Answer(10, was_cut=False))
    assert answers.lengths("titles", "coder", None).values == (10,)
    answers.came("titles", "coder", Answer(3, was_cut=False))
    assert answers.lengths("titles", "coder", None).values == (3,)
    assert answers.lengths("chat", "coder", None).mean == 10


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=50))
def test_a_mean_lies_among_what_was_seen(values: list[float]) -> None:
    learnt = Learnt()
    for value in values:
        learnt.take_in(value)
    estimate = learnt.estimate
    assert estimate is not None
    assert min(values) * 0.999 <= estimate.mean <= max(values) * 1.001
    assert estimate.count == len(values)


def test_a_mean_follows_when_things_change() -> None:
    learnt = Learnt(weight=0.1)
    for value in [10.0] * 50 + [20.0] * 50:
        learnt.take_in(value)
    assert mean(learnt.estimate) == pytest.approx(20, abs=0.1)


def test_what_has_gone_on_for_long_is_soon_over_or_never_was_what_it_seemed() -> None:
    whole = Estimate(1000, 300)
    chances = [Remaining.of(whole, passed).chance_within(200) for passed in (0, 500, 900, 1200)]
    assert chances == sorted(chances)
    assert chances[0] < 0.01
    assert Remaining.of(whole, 0, at_most=150).chance_within(150) == 1
    assert 0 < Remaining.of(whole, 1e9).chance_within(1e9) <= 1


def test_forecasts_that_say_nothing_become_the_rate_at_which_it_happens() -> None:
    reliability = Reliability()
    for number in range(400):
        reliability.came(forecast=0.1 if number % 2 else 0.9, outcome=number % 4 < 2)
    assert reliability.corrected(0.9) == pytest.approx(0.5, abs=0.1)
    assert reliability.corrected(0.1) == pytest.approx(0.5, abs=0.1)


def test_forecasts_that_came_true_stay_as_they_are_and_new_ones_are_believed() -> None:
    reliability = Reliability()
    assert reliability.corrected(0.7) == 0.7
    for number in range(400):
        forecast = (number % 10) / 10
        reliability.came(forecast, outcome=(number // 10 % 10) / 10 < forecast)
    assert reliability.corrected(0.8) == pytest.approx(0.8, abs=0.1)
    assert 0 <= reliability.corrected(0.0) <= reliability.corrected(1.0) <= 1


def test_what_was_learnt_is_kept_now_and_then_and_goes_on_after_a_restart() -> None:
    rates = Rates()
    for _ in range(40):
        rates.ran(run())
    rates.loaded("coder", "garage", 4000, took_ms=2000)
    kept = rates.take_to_keep()
    assert rates.take_to_keep() == []
    counts = [rate.estimate.count for rate in kept if rate.quantity is Quantity.DECODE]
    assert counts == [1, 2, 4, 8, 16, 32], "not each of forty"
    again = Rates()
    for rate in kept:
        again.restore(rate)
    assert mean(again.prefill_ms("coder", CARD, 200)) == 100
    assert mean(again.decode_ms("coder", CARD, 1, 10)) == 200
    assert mean(again.load_ms("writer", "garage", 8000)) == 4000
    assert again.prompt_tokens("coder", 10) == 10
    again.ran(run(decode_ms=4000))
    assert mean(again.decode_ms("coder", CARD, 1, 10)) > 200
