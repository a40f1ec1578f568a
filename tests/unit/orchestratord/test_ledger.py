import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.core.ledger import Ledger, OverCommit

GPU = ("garage", "GPU-1")
OTHER = ("garage", "GPU-2")


def ledger() -> Ledger:
    made = Ledger()
    made.set_device(GPU, total_mib=1000, reserve_mib=100, others_mib=50)
    made.set_device(OTHER, total_mib=500, reserve_mib=0, others_mib=0)
    return made


def test_available_is_what_nobody_else_holds() -> None:
    made = ledger()
    made.reserve("w1", {GPU: 300})
    assert (made.capacity(GPU), made.held(GPU), made.available(GPU)) == (850, 300, 550)


@pytest.mark.req("ORCH-1014")
def test_a_set_is_reserved_whole_or_not_at_all() -> None:
    made = ledger()
    with pytest.raises(OverCommit):
        made.reserve("w1", {GPU: 100, OTHER: 501})
    assert made.available(GPU) == 850


def test_the_larger_of_claim_and_measurement_counts() -> None:
    made = ledger()
    made.reserve("w1", {GPU: 300})
    made.measured("w1", {GPU: 200})
    assert made.held(GPU) == 300
    made.measured("w1", {GPU: 400})
    assert made.held(GPU) == 400


def test_a_late_release_frees_nothing_of_another_load() -> None:
    made = ledger()
    made.reserve("w1", {GPU: 300})
    made.release("w1")
    made.reserve("w2", {GPU: 300})
    made.release("w1")
    assert made.held(GPU) == 300


def test_another_program_lowers_what_is_available_also_below_zero() -> None:
    made = ledger()
    made.reserve("w1", {GPU: 800})
    made.set_device(GPU, 1000, 100, 400)
    assert made.available(GPU) == -300


@pytest.mark.req("ORCH-1014")
@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "release", "late release"]), st.integers(0, 12), st.integers(0, 600))
    )
)
def test_whatever_happens_no_device_is_over_committed(steps: list[tuple[str, int, int]]) -> None:
    made = ledger()
    for verb, load, mib in steps:
        if verb != "reserve":
            made.release(f"w{load}")
            continue
        with contextlib.suppress(OverCommit):
            made.reserve(f"w{load}", {GPU: mib, OTHER: mib // 2})
        assert made.available(GPU) >= 0
        assert made.available(OTHER) >= 0
