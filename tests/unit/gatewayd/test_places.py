"""Which connections may be there."""

from dataclasses import dataclass

import pytest

from gatewayd.http.places import Places, origin_of


@dataclass(eq=False)
class Caller:
    address: str
    is_serving: bool = False
    is_asking: bool = False

    @property
    def has_request(self) -> bool:
        return self.is_serving or self.is_asking


def places(most: int, most_per_address: int, *callers: Caller) -> Places[Caller]:
    made: Places[Caller] = Places(most, most_per_address)
    for caller in callers:
        made.take(caller)
    return made


def test_one_that_serves_no_request_leaves_for_a_newcomer() -> None:
    busy, first, second = Caller("10.0.0.1", is_serving=True), Caller("10.0.0.2"), Caller("10.0.0.3")
    held = places(3, 9, busy, first, second)
    assert held.refused_by("10.0.0.4") is None
    assert held.in_the_way() is first
    held.leave(first)
    assert held.in_the_way() is None


def test_one_that_waits_to_be_let_in_leaves_after_those_that_ask_for_nothing() -> None:
    waiting, silent = Caller("10.0.0.1", is_asking=True), [Caller("10.0.0.1") for _ in range(3)]
    held = places(4, 9, waiting, *silent)
    assert held.in_the_way() is silent[0]
    for each in silent:
        each.is_asking = True
    assert held.in_the_way() is waiting


def test_a_newcomer_that_has_not_asked_yet_outlasts_those_that_wait_to_be_let_in() -> None:
    waiting = [Caller("10.0.0.1", is_asking=True) for _ in range(3)]
    assert places(4, 9, *waiting, Caller("10.0.0.1")).in_the_way() is waiting[0]


def test_the_address_with_the_most_gives_way_first() -> None:
    flood = [Caller("10.0.0.9") for _ in range(3)]
    quiet = Caller("10.0.0.1")
    assert places(4, 9, quiet, *flood).in_the_way() is flood[0]


def test_where_all_serve_a_newcomer_is_refused() -> None:
    held = places(2, 9, Caller("10.0.0.1", is_serving=True), Caller("10.0.0.2", is_serving=True))
    assert held.refused_by("10.0.0.3") == "max_connections"
    assert held.in_the_way() is None


def test_an_address_of_another_machine_has_its_own_bound_and_this_machine_has_none() -> None:
    held = places(100, 2, *(Caller("10.0.0.1") for _ in range(2)), *(Caller("127.0.0.1") for _ in range(5)))
    addresses = ("10.0.0.1", "10.0.0.2", "127.0.0.1")
    assert [held.refused_by(address) for address in addresses] == ["max_per_address", None, None]


def test_who_left_twice_freed_one_place() -> None:
    one, other = Caller("10.0.0.1"), Caller("10.0.0.1")
    held = places(9, 9, one, other)
    held.leave(one)
    held.leave(one)
    assert (len(held), held.all()) == (1, [other])


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("127.8.9.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not an address", "not an address"),
    ],
)
def test_what_counts_as_one_address(address: str, origin: str | None) -> None:
    assert origin_of(address) == origin
