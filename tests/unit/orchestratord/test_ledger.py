import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.core.facts.ledger import Ledger, OverCommit

GPU = ("garage", "GPU-1")
OTHER = ("garage", "GPU-2")


def ledger() -> Ledger:
    made = Ledger()
    made.set_device(GPU, total_mib=1000, reserve_mib=100, others_mib=50)
    made.set_device(OTHER, total_mib=500, reserve_mib=0, others_mib=0)
    return made


def test_available_is_what_no_worker_holds() -> None:
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


def test_promised_memory_is_available_only_to_its_load() -> None:
    made = ledger()
    made.reserve("old", {OTHER: 400})
    made.promise("new", {OTHER: 450})
    assert made.available(OTHER) < 0
    made.release("old")
    assert made.available(OTHER) == 50
    assert not made.fits("another", {OTHER: 100})
    made.reserve("new", {OTHER: 450})
    assert (made.held(OTHER), made.available(OTHER)) == (450, 50)


def test_a_promise_that_is_given_up_leaves_nothing_behind() -> None:
    made = ledger()
    made.promise("new", {GPU: 300, OTHER: 300})
    made.release("new")
    assert (made.available(GPU), made.available(OTHER)) == (850, 500)


@pytest.mark.req("POOL-2003")
def test_memory_of_a_crashed_worker_counts_again_only_when_its_device_shows_it_free() -> None:
    made = ledger()
    made.reserve("w1", {OTHER: 400})
    made.release_when_back("w1", until=10)
    assert (made.held(OTHER), made.returning(OTHER), made.available(OTHER)) == (0, 400, 100)
    made.set_device(OTHER, total_mib=500, reserve_mib=0, others_mib=150)
    assert (made.returning(OTHER), made.available(OTHER), made.capacity(OTHER)) == (150, 350, 500)
    made.set_device(OTHER, total_mib=500, reserve_mib=0, others_mib=0)
    assert made.available(OTHER) == 500


def test_another_program_is_told_from_memory_that_is_coming_back() -> None:
    made = ledger()
    made.reserve("w1", {OTHER: 100})
    made.release_when_back("w1", until=10)
    made.set_device(OTHER, total_mib=500, reserve_mib=0, others_mib=300)
    assert (made.returning(OTHER), made.capacity(OTHER)) == (100, 300)


def test_the_wait_for_memory_is_bounded() -> None:
    made = ledger()
    made.reserve("w1", {OTHER: 400})
    made.release_when_back("w1", until=10)
    assert not made.expire_returns(9.9)
    assert made.expire_returns(10)
    assert made.available(OTHER) == 500


def test_memory_of_all_workers_counts_again_whose_time_is_over_at_once() -> None:
    made = ledger()
    for worker in ("w1", "w2"):
        made.reserve(worker, {OTHER: 200})
        made.release_when_back(worker, until=10)
    assert made.expire_returns(10)
    assert (made.returning(OTHER), made.available(OTHER)) == (0, 500)


@pytest.mark.req("ORCH-1014")
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "promise", "measure", "release", "crash", "report", "time"]),
            st.integers(0, 8),
            st.integers(0, 600),
        )
    )
)
def test_whatever_happens_the_sums_are_those_of_the_parts_and_nothing_is_over_committed(
    steps: list[tuple[str, int, int]],
) -> None:
    made, held, promised = ledger(), dict[str, int](), dict[str, int]()
    for now, (verb, load, mib) in enumerate(steps):
        name = f"w{load}"
        match verb:
            case "reserve" if name not in held:
                with contextlib.suppress(OverCommit):
                    made.reserve(name, {OTHER: mib})
                    held[name] = mib
                    promised.pop(name, None)
                    assert sum(held.values()) + made.returning(OTHER) <= made.capacity(OTHER)
            case "promise" if name not in held and name not in promised:
                made.promise(name, {OTHER: mib})
                promised[name] = mib
            case "measure" if name in held and mib <= held[name]:
                made.measured(name, {OTHER: mib})
            case "release":
                made.release(name)
                held.pop(name, None)
                promised.pop(name, None)
            case "crash":
                made.release_when_back(name, until=now + 3)
                held.pop(name, None)
                promised.pop(name, None)
            case "report":
                made.set_device(OTHER, total_mib=500, reserve_mib=0, others_mib=mib % 200)
            case "time":
                made.expire_returns(now)
        assert made.held(OTHER) == sum(held.values())
        assert made.available(OTHER) == (
            made.capacity(OTHER) - sum(held.values()) - made.returning(OTHER) - sum(promised.values())
        )
