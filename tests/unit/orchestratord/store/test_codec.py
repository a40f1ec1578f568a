from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.store import codec


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Inner:
    number: float
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Other:
    number: float


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    colour: Colour
    inner: Inner
    perhaps: Inner | None
    either: Inner | Other
    many: tuple[Inner, ...]
    pair: tuple[int, str]
    some: frozenset[str]
    by_name: Mapping[str, int]
    count: int | None = None
    later: bool = True


finite = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(Inner, finite, st.binary(max_size=20))
outers = st.builds(
    Outer,
    name=st.text(),
    colour=st.sampled_from(Colour),
    inner=inners,
    perhaps=st.none() | inners,
    either=inners | st.builds(Other, finite),
    many=st.lists(inners, max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.text()),
    some=st.frozensets(st.text(), max_size=3),
    by_name=st.dictionaries(st.text(), st.integers(), max_size=3),
    count=st.none() | st.integers(),
    later=st.booleans(),
)


@given(outers)
def test_what_is_read_is_what_was_written(outer: Outer) -> None:
    assert codec.load(Outer, codec.dump(Outer, outer)) == outer


def test_equal_records_are_written_equally() -> None:
    sets = frozenset({"a", "b", "c"}), frozenset({"c", "b", "a"})
    assert len({codec.dump(frozenset[str], one) for one in sets}) == 1


def test_a_field_that_came_later_gets_its_default_and_one_that_went_is_left_out() -> None:
    assert codec.load(Inner, '{"number": 1, "gone": [2]}') == Inner(1.0)


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        codec.dump(Other, Other(float("nan")))


@pytest.mark.parametrize("kind", [object, list[int], int | str, dict[int, str]], ids=str)
def test_a_type_that_could_not_be_read_back_is_refused(kind: object) -> None:
    with pytest.raises(TypeError, match=r"can't be kept|told apart"):
        codec.dump(kind, 1)
