"""Of the tasks aboard a worker that ends by itself, the one that ends workers is found, and no other is blamed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.core.facts.suspicion import ENDS_AT_MOST, Suspicion, Verdict, worker_ended


def test_alone_aboard_a_task_may_end_two_workers() -> None:
    aboard = {"a": Suspicion()}
    assert worker_ended(aboard) == Verdict("a", is_proven=False)
    assert worker_ended(aboard) == Verdict("a", is_proven=True)


def test_of_several_none_is_blamed_and_what_the_next_worker_ends_under_is_a_suspect() -> None:
    aboard = {name: Suspicion() for name in "abc"}
    assert worker_ended(aboard) == Verdict()
    assert all(one == Suspicion(under=1) for one in aboard.values())
    aboard["c"].is_past()
    aboard["d"] = Suspicion()
    assert worker_ended(aboard) == Verdict()
    assert {name: one.is_hot for name, one in aboard.items()} == {"a": True, "b": True, "c": False, "d": False}
    assert not any(one.ended for one in aboard.values())


def test_a_lone_suspect_is_blamed_and_what_runs_beside_it_is_not() -> None:
    suspect, innocent = Suspicion(is_hot=True), Suspicion()
    assert worker_ended({"s": suspect, "i": innocent}) == Verdict("s", is_proven=False)
    assert (suspect.ended, innocent) == (1, Suspicion(under=1))


def test_a_task_beside_runs_of_others_is_not_alone() -> None:
    """Those may be the cause, though their tasks are over or go on elsewhere."""
    innocent = Suspicion()
    assert worker_ended({"i": innocent}, others=1) == Verdict()
    assert worker_ended({"i": innocent}, others=1) == Verdict()
    assert innocent == Suspicion(under=2, is_hot=True)
    for _ in range(ENDS_AT_MOST):
        assert worker_ended({"i": innocent}, others=1) == Verdict("i", is_proven=False)
    assert worker_ended({"i": innocent}) == Verdict("i", is_proven=True)


def test_what_runs_beside_a_lone_suspect_again_and_again_is_a_suspect_as_well() -> None:
    beside = Suspicion()
    for other in "ab":
        worker_ended({other: Suspicion(is_hot=True), "beside": beside})
    assert beside.is_hot
    assert not beside.ended


def test_a_suspect_with_others_beside_it_runs_alone_before_it_is_given_up() -> None:
    suspect = Suspicion(is_hot=True)
    for _ in range(ENDS_AT_MOST):
        assert not worker_ended({"s": suspect, "i": Suspicion()}).is_proven
    assert suspect.must_run_alone
    assert worker_ended({"s": suspect}) == Verdict("s", is_proven=True)


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_a_task_whose_output_goes_on_beyond_the_point_is_no_suspect_any_more(ended: int) -> None:
    suspect = Suspicion(under=ended, is_hot=True, ended=ended)
    suspect.is_past()
    assert suspect == Suspicion()


@given(st.dictionaries(st.sampled_from("abcdef"), st.booleans(), max_size=6), st.integers(1, 12))
def test_only_what_ended_its_workers_is_ever_proven_to(hot: dict[str, bool], times: int) -> None:
    """One of the tasks ends every worker that it is on; the others run with at most one suspect at a time."""
    aboard = {"poison": Suspicion(), **{name: Suspicion(is_hot=is_hot) for name, is_hot in hot.items()}}
    for _ in range(times):
        verdict = worker_ended(aboard)
        assert verdict.culprit in ("", "poison") or not verdict.is_proven
        suspects = [name for name, suspicion in aboard.items() if suspicion.is_hot]
        if "poison" in suspects:
            aboard = {"poison": aboard["poison"]} | {name: one for name, one in aboard.items() if not one.is_hot}
