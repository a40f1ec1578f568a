"""Who has had how much of the GPUs: what an app is charged with, and where it starts when it wakes."""

import pytest

from orchestratord.core.facts.accounts import DEBTORS_KEPT, MOST_OWED_S, Accounts


def accounts(*active: str, **weights: float) -> Accounts:
    made = Accounts(weights)
    for app in active:
        made.begins_to_wait(app)
    return made


def next_of(made: Accounts, *apps: str) -> str:
    return min(apps, key=made.time_of)


@pytest.mark.req("ORCH-1003")
def test_apps_get_device_seconds_by_their_weights() -> None:
    made = accounts("a", "b", "c", a=1.0, b=2.0, c=4.0)
    got = dict.fromkeys("abc", 0.0)
    for turn in range(700):
        app, took_s = next_of(made, *"abc"), 1.0 + turn % 3
        made.charge(app, took_s)
        got[app] += took_s
    assert [round(got[app] / sum(got.values()), 2) for app in "abc"] == [0.14, 0.29, 0.57]


def test_an_app_that_wakes_is_served_before_a_flood_but_is_owed_nothing_for_its_pause() -> None:
    made = accounts("flood")
    for _ in range(1000):
        made.charge("flood", 1.0)
    made.begins_to_wait("calm")
    assert next_of(made, "flood", "calm") == "calm"
    for _ in range(2):
        made.charge("calm", 1.0)
    assert next_of(made, "flood", "calm") == "flood"


def test_a_debt_is_not_lost_by_a_pause() -> None:
    made = accounts("steady", "greedy")
    made.charge("greedy", 50.0)
    made.waits_no_more("greedy")
    made.charge("steady", 10.0)
    made.begins_to_wait("greedy")
    assert made.time_of("greedy") == 50.0


def test_time_alone_is_no_debt() -> None:
    """An app that had the GPUs for itself for an hour is behind one that comes after it by its last run only."""
    made = accounts("first")
    for _ in range(3600):
        made.charge("first", 1.0)
    made.waits_no_more("first")
    made.begins_to_wait("second")
    made.begins_to_wait("first")
    assert made.time_of("first") - made.time_of("second") == 1.0


@pytest.mark.parametrize("weight", [0.1, 1.0, 4.0])
def test_an_app_is_not_owed_without_end_what_it_could_not_use(weight: float) -> None:
    made = accounts("away", "other", away=weight)
    for _ in range(round(2 * MOST_OWED_S / weight)):
        made.charge("other", 1.0)
    behind = made.time_of("other") - made.time_of("away")
    assert behind * weight == pytest.approx(MOST_OWED_S, abs=1.01 * weight)


def test_what_was_charged_is_corrected_when_it_is_known() -> None:
    made = accounts("a", a=2.0)
    made.charge("a", 10.0)
    made.correct("a", -4.0)
    assert made.time_of("a") == 3.0


def test_the_clock_never_goes_back() -> None:
    made = accounts("a", "b")
    made.charge("a", 10.0)
    made.charge("b", 10.0)
    made.begins_to_wait("c")
    came = made.time_of("c")
    made.correct("a", -9.0)
    made.waits_no_more("c")
    made.begins_to_wait("d")
    assert made.time_of("d") >= came


def test_of_apps_that_do_nothing_the_largest_debts_are_kept() -> None:
    made = accounts("steady")
    for number in range(DEBTORS_KEPT + 10):
        app = f"app-{number}"
        made.begins_to_wait(app)
        made.charge(app, 1.0 + number)
        made.waits_no_more(app)
    kept = [number for number in range(DEBTORS_KEPT + 10) if made.time_of(f"app-{number}") > 0]
    assert kept == list(range(10, DEBTORS_KEPT + 10))


def test_an_app_that_is_gone_has_no_account_and_no_weight() -> None:
    made = accounts(gone=4.0)
    made.begins_to_wait("gone")
    made.charge("gone", 8.0)
    made.forget("gone")
    assert made.time_of("gone") == 2.0, "something of it still waits"
    made.waits_no_more("gone")
    made.forget("gone")
    assert (made.time_of("gone"), made.weight("gone")) == (0.0, 1.0)
