import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.store import codec, names
from orchestratord.store.shape import Change, Shape, added


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


@dataclass(frozen=True, slots=True)
class Unnamed:
    pass


@dataclass(frozen=True, slots=True)
class Untagged:
    kind: str


@dataclass(frozen=True, slots=True)
class Same:
    pass


SHAPES = (
    Shape(Inner, ("number", "data"), tag="inner"),
    Shape(Other, ("number",), tag="other"),
    Shape(
        Outer,
        ("title", "colour", "inner", "perhaps", "either", "many", "pair", "some", "by_name", "count", "later"),
        attributes={"title": "name"},
    ),
)


@pytest.fixture(autouse=True)
def shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES:
        monkeypatch.setitem(names.BY_TYPE, shape.type, shape)


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


def test_what_is_written_has_the_names_of_the_store_and_not_those_of_python() -> None:
    outer = Outer("x", Colour.RED, Inner(1), None, Other(2), (), (1, "a"), frozenset(), {})
    assert codec.dump(Outer, outer) == (
        '{"title":"x","colour":"red","inner":{"number":1,"data":""},"perhaps":null,"either":{"kind":"other","number":2},'
        '"many":[],"pair":[1,"a"],"some":[],"by_name":{},"count":null,"later":true}'
    )


OUTER = (
    '{"title":"x","colour":"red","inner":{"number":1,"data":""},"perhaps":null,"either":{"kind":"other","number":2},'
    '"many":[{"number":1,"data":""}],"pair":[1,"a"],"some":[],"by_name":{"a":1},"count":null,"later":true}'
)


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        (',"later":true', "", "later: the field is missing"),
        ('"later"', '"sooner"', "sooner: this release knows no such field"),
        ('"many":[{"number":1,', '"many":[{"length":1,', "many.0.length: this release knows no such field"),
        ('"inner":{"number":1,"data":""}', '"inner":{"number":1}', "inner.data: the field is missing"),
        ('"inner":{"number":1,"data":""}', '"inner":null', "inner: "),
        ('"kind":"other"', '"kind":"Other"', "either.kind: 'Other' is none of inner, other"),
        ('"kind":"other",', "", "either.kind: None is none of inner, other"),
        ('"red"', '"green"', "colour: .*'green' is not a valid Colour"),
        ('"title":"x"', '"title":null', "title: .*None is no str"),
        ('"title":"x"', '"title":7', "title: .*7 is no str"),
        ('"later":true', '"later":1', "later: .*1 is no bool"),
        ('{"a":1}', '{"a":true}', "by_name.a: .*True is no int"),
        ("}", "", "JSONDecodeError"),
    ],
)
def test_what_is_not_of_the_present_form_is_refused_with_its_place(written: str, instead: str, told: str) -> None:
    assert codec.dump(Outer, codec.load(Outer, OUTER))
    assert written in OUTER
    with pytest.raises(codec.Unreadable, match=f"^(: )?{told}"):
        codec.load(Outer, OUTER.replace(written, instead))


@given(outers)
def test_a_lost_or_a_strange_field_is_never_passed_over(outer: Outer) -> None:
    stored = json.loads(codec.dump(Outer, outer))
    for name in stored:
        with pytest.raises(codec.Unreadable, match=name):
            codec.load(Outer, json.dumps({other: stored[other] for other in stored if other != name}))
        with pytest.raises(codec.Unreadable, match=f"{name}2"):
            codec.load(Outer, json.dumps(stored | {f"{name}2": stored[name]}))


def test_changes_since_a_format_are_made_wherever_the_dataclass_is(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = (
        added(2, Inner, data="AA=="),
        Change(2, Other, lambda stored: stored.update(number=stored["number"] + 1)),
        added(3, Outer, later=False),
        Change(3, Outer, lambda stored: stored.pop("gone", None)),
    )
    monkeypatch.setattr(names, "CHANGES", changes)
    old = OUTER.replace(',"later":true', ',"gone":1').replace(',"data":""', "")
    new = OUTER.replace('"later":true', '"later":false').replace('"data":""', '"data":"AA=="')
    assert codec.load(Outer, codec.upgrade(Outer, old, 1)) == codec.load(Outer, new.replace("2}", "3}"))
    assert codec.load(Outer, codec.upgrade(Outer, new, 2)) == codec.load(Outer, new)
    assert codec.upgrade(Outer, old, 3) == old


def test_a_dataclass_without_names_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"Unnamed has no names on the disk: give it a Shape in store/names\.py"):
        codec.dump(Unnamed, Unnamed())


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (Shape(Inner, ("number",)), "Inner.data has no name on the disk: .* in CHANGES"),
        (Shape(Inner, ("number", "data", "old")), "names Inner.old, which does not exist: .*`attributes`"),
        (Shape(Inner, ("number", "data"), attributes={"data": "bytes"}), "Inner.data has no name"),
    ],
)
def test_names_that_are_not_those_of_the_fields_are_refused_with_what_to_do(shape: Shape, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        shape.check()


def test_one_of_several_dataclasses_needs_a_tag_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.BY_TYPE, Untagged, Shape(Untagged, ("kind",)))
    with pytest.raises(TypeError, match="needs a `tag`"):
        codec.dump(Inner | Untagged, Inner(1))
    monkeypatch.setitem(names.BY_TYPE, Untagged, Shape(Untagged, ("kind",), tag="untagged"))
    with pytest.raises(TypeError, match="no field 'kind'"):
        codec.dump(Inner | Untagged, Inner(1))
    monkeypatch.setitem(names.BY_TYPE, Same, Shape(Same, (), tag="inner"))
    with pytest.raises(TypeError, match="the same tag"):
        codec.dump(Inner | Same, Inner(1))


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        codec.dump(Other, Other(float("nan")))


@pytest.mark.parametrize("kind", [object, list[int], int | str, dict[int, str]], ids=str)
def test_a_type_that_could_not_be_read_back_is_refused(kind: object) -> None:
    with pytest.raises(TypeError, match=r"can't be kept|told apart"):
        codec.dump(kind, 1)
