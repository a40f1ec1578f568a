"""Which branches of `oneOf` can't hold at once; checked against a validator that has nothing to do with it."""

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.example_count import examples
from worker_orcd.constraint.exclusion import Exclusion

CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]}
PETS = {"$defs": {"Cat": CAT, "Dog": DOG, "Any": {"anyOf": [{"$ref": "#/$defs/Cat"}, {"type": "null"}]}}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "integer"}, {"type": "string"}),
        ({"type": ["integer", "null"]}, {"type": ["string", "boolean"]}),
        ({"const": 1}, {"const": 2}),
        ({"const": 1}, {"const": True}),
        ({"enum": ["a", "b"]}, {"enum": ["c", 1]}),
        ({"const": 0}, {"type": "integer", "minimum": 1}),
        ({"const": "a"}, {"type": "number"}),
        ({"const": [1]}, {"const": [2]}),
        ({"type": "number", "maximum": 3}, {"type": "integer", "exclusiveMinimum": 3}),
        ({"type": "number", "maximum": 3, "exclusiveMaximum": True}, {"type": "number", "minimum": 3}),
        ({"type": "string", "maxLength": 3}, {"type": "string", "minLength": 4}),
        ({"type": "array", "maxItems": 1}, {"type": "array", "minItems": 2}),
        (
            {"type": "array", "prefixItems": [{"const": "a"}], "minItems": 1},
            {"type": "array", "items": {"const": "b"}},
        ),
        (CAT, DOG),
        ({"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}),
        ({"$ref": "#/$defs/Any"}, {"$ref": "#/$defs/Dog"}),
        ({"allOf": [{"$ref": "#/$defs/Cat"}, {"properties": {"n": {"type": "null"}}}]}, DOG),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {}}, "additionalProperties": False},
        ),
        (False, True),
    ],
)
def test_what_can_not_hold_at_once_is_known(one: Any, other: Any) -> None:
    exclusion = Exclusion(PETS)
    assert exclusion.excludes(one, other)
    assert exclusion.excludes(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "integer"}, {"type": "number"}),
        ({"const": 1}, {"const": 1.0}),
        ({"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}),
        ({"type": "number", "maximum": 3}, {"type": "number", "minimum": 3}),
        ({"properties": {"kind": {"const": "cat"}}}, {"properties": {"kind": {"const": "dog"}}}),
        ({"required": ["a"]}, {"required": ["b"]}),
        ({"$ref": "#/$defs/Any"}, {"type": "null"}),
        ({"$ref": "#/$defs/Missing"}, {"type": "null"}),
        ({"$ref": "https://example.org/cat"}, {"type": "null"}),
        (True, {"type": "null"}),
        ({}, {}),
    ],
)
def test_what_may_hold_at_once_is_never_taken_for_excluded(one: Any, other: Any) -> None:
    assert not Exclusion(PETS).excludes(one, other)


def wide(levels: int) -> dict[str, Any]:
    """Each level refers to the next one ten times."""
    return {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"} for _ in range(10)]} for n in range(levels)}


@pytest.mark.parametrize(
    ("root", "branches"),
    [
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * 10}}}, [{"$ref": "#/$defs/a"}, {"type": "null"}]),
        ({"$defs": wide(30)}, [{"$ref": "#/$defs/a0"}, {"type": "null"}]),
        ({}, [{"allOf": [{} for _ in range(4000)]}, {"allOf": [{} for _ in range(4000)]}]),
        (
            {},
            [
                {"required": [f"k{n}" for n in range(3000)], "additionalProperties": {"type": "integer"}},
                {"additionalProperties": {"enum": list(range(3000))}},
            ],
        ),
        ({}, [{"type": "array", "minItems": float("-inf")}, {"type": "array", "minItems": -1e300}]),
        ({}, [{"type": "array", "minItems": 10**400}, {"type": "array", "minItems": 1}]),
        ({}, [{"anyOf": 5, "allOf": 5, "required": 5, "properties": 5}, {"type": 5, "enum": 5, "$ref": 5}]),
        ({"allOf": [{}]}, [{"$ref": "#/allOf/" + "1" * 5000}, {"type": "null"}]),
    ],
)
def test_hostile_schemas_cost_little_and_prove_nothing(root: Any, branches: list[object]) -> None:
    began = time.thread_time()
    assert Exclusion(root).overlapping(branches) == (0, 1)
    assert time.thread_time() - began < 2


def test_references_within_a_schema_of_another_name_are_not_followed() -> None:
    inner = {"$id": "http://other/x", "$ref": "#/$defs/b", "$defs": {"b": {"type": "string"}}}
    root = {"$defs": {"a": inner, "b": {"type": "number"}}}
    assert not Exclusion(root).excludes({"$ref": "#/$defs/a"}, {"type": "string"})


def test_schemas_that_go_round_in_circles_end() -> None:
    root = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}}
    reference = {"$ref": "#/$defs/a"}
    assert not Exclusion(root).excludes(reference, reference)
    assert Exclusion(root).overlapping([reference, {"type": "null"}, {"const": None}]) == (0, 1)


def test_a_long_list_of_constants_needs_no_comparison_of_each_with_each() -> None:
    assert Exclusion({}).overlapping([{"const": number} for number in range(5000)]) is None
    assert Exclusion({}).overlapping([{"const": 1}, {"const": 2}, {"const": 1}]) == (0, 2)


SCALARS = st.sampled_from([None, True, False, 0, 1, 2, 1.5, 3, "", "a", "ab", "abc"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=4,
)
TYPE = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
SIZE = st.integers(0, 3)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    listed = st.lists(inner, min_size=1, max_size=2)
    keywords = {
        "type": TYPE | st.lists(TYPE, min_size=1, max_size=2, unique=True),
        "const": SCALARS,
        "enum": st.lists(SCALARS, min_size=1, max_size=3),
        "minimum": SIZE,
        "maximum": SIZE,
        "exclusiveMinimum": SIZE,
        "exclusiveMaximum": SIZE,
        "minLength": SIZE,
        "maxLength": SIZE,
        "minItems": SIZE,
        "maxItems": SIZE,
        "minProperties": SIZE,
        "maxProperties": SIZE,
        "required": st.lists(st.sampled_from("ab"), max_size=2, unique=True),
        "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        "additionalProperties": inner,
        "prefixItems": listed,
        "items": inner,
        "anyOf": listed,
        "allOf": listed,
        "$ref": st.sampled_from(["#/$defs/Cat", "#/$defs/Any"]),
    }
    return st.lists(st.sampled_from(sorted(keywords)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: keywords[name] for name in names})
    )


SCHEMAS = st.recursive(st.booleans(), _schemas, max_leaves=5)


@settings(max_examples=examples(300), deadline=None)
@given(SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=12, max_size=12))
def test_no_value_satisfies_what_is_said_to_exclude_each_other(one: Any, other: Any, values: list[Any]) -> None:
    if not Exclusion(PETS).excludes(one, other):
        return
    both = jsonschema.Draft202012Validator({**PETS, "allOf": [one, other]})
    assert not [json.dumps(value) for value in values if both.is_valid(value)]
