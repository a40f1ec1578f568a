"""What is expected to be asked for next."""

import pytest

from orchestratord.core.learnt.demand import Demand

pytestmark = pytest.mark.req("ORCH-1015")


def demand(*models: str, times: int = 100) -> Demand:
    found = Demand()
    for _ in range(times):
        for model in models:
            found.note(model)
    return found


def test_before_the_first_request_none_is_expected() -> None:
    assert Demand().among_next(5, "coder") == 0


def test_the_next_request_is_for_a_model_as_often_as_the_last_ones_were() -> None:
    found = demand("coder", "coder", "coder", "writer")
    assert found.among_next(1, "coder") == pytest.approx(0.75, abs=0.02)
    assert found.among_next(1, "writer") == pytest.approx(0.25, abs=0.02)


def test_one_of_several_is_more_probable_and_never_more_than_sure() -> None:
    found = demand("coder", "coder", "coder", "writer")
    assert found.among_next(5, "writer") == pytest.approx(1 - 0.75**5, abs=0.03)
    assert found.among_next(5, "coder") < found.among_next(50, "coder") <= 1


def test_of_one_model_alone_every_request_is_expected() -> None:
    assert demand("coder").among_next(1, "coder") == pytest.approx(1)


def test_what_was_never_asked_for_is_not_ruled_out() -> None:
    assert 0 < demand("coder").among_next(1, "writer") < 0.05


def test_what_is_asked_for_of_late_is_expected_soon() -> None:
    found = demand("coder", times=400)
    for _ in range(60):
        found.note("writer")
    assert found.among_next(1, "writer") > 0.5


def test_a_model_that_is_gone_is_forgotten() -> None:
    found = demand("coder", "writer")
    found.forget("coder")
    assert found.among_next(1, "coder") < 0.05
    assert found.among_next(1, "writer") > 0.95
