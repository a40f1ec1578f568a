from collections.abc import Sequence

import pytest

from pool_managerd.workers.stall import EngineSigns, StallWatch

pytestmark = pytest.mark.req("POOL-2004")

LIMIT_S = 30.0
EVERY_S = 2


def first_complaint(signs: Sequence[EngineSigns | None]) -> tuple[int, str] | None:
    """The second at which one of these looks, one every two seconds, finds something wrong; and what."""
    watch = StallWatch(LIMIT_S)
    for number, sign in enumerate(signs):
        if problem := watch.look(sign, 1000.0 + number * EVERY_S):
            return number * EVERY_S, problem
    return None


def test_an_engine_that_makes_steps_is_not_stuck() -> None:
    assert first_complaint([EngineSigns(3, step) for step in range(100)]) is None


def test_an_engine_without_work_need_not_make_any() -> None:
    assert first_complaint([EngineSigns(0, 7)] * 100) is None


def test_an_engine_that_makes_no_step_with_work_queued_is_stuck_after_the_limit() -> None:
    assert first_complaint([EngineSigns(2, 7)] * 100) == (
        30,
        "its engine made no step although 2 run(s) waited for one for 30 s",
    )


def test_time_without_work_does_not_count() -> None:
    idle, stuck = [EngineSigns(0, 7)] * 50, [EngineSigns(1, 7)] * 50
    found = first_complaint(idle + stuck)
    assert found is not None
    assert found[0] == 49 * EVERY_S + LIMIT_S


def test_a_slow_step_now_and_then_is_enough() -> None:
    assert first_complaint([EngineSigns(1, number // 14) for number in range(200)]) is None


def test_a_worker_that_does_not_answer_is_stuck_whether_it_has_work_or_not() -> None:
    found = first_complaint([EngineSigns(0, 7)] * 5 + [None] * 50)
    assert found == (4 * EVERY_S + LIMIT_S, "its engine did not answer for 30 s")


def test_an_answer_in_between_is_enough() -> None:
    assert first_complaint([EngineSigns(0, 7), *[None] * 10] * 10) is None


def test_a_worker_is_not_blamed_for_a_time_without_looks() -> None:
    watch = StallWatch(LIMIT_S)
    assert watch.look(EngineSigns(1, 7), 0.0) is None
    assert watch.look(EngineSigns(1, 7), 3600.0) is None
    assert watch.look(None, 7200.0) is None
    assert watch.look(None, 7202.0) is None
