"""Outputs that a random walk finds under a JSON schema satisfy it, says a validator that has nothing to do with the
engine; what can't be kept to is refused by the name of the keyword.
"""

import json
import random
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from llorch.errors import InvalidArgument, Reason
from worker_orcd.engines.llama_cpp.constraints import Constraint, ConstraintCompiler
from worker_orcd.run_spec import ConstraintKind, OutputConstraint

WALKS = 25
LONGEST = 600
END = 256
PIECES = [bytes([byte]) for byte in range(END)]
PIECES += [b"", b'{"', b'": ', b'",', b'"}', b"\n\n", b"  ", b"true", b"12", b"}]"]
MODEL: Any = SimpleNamespace(pieces=PIECES, ends_text=frozenset({END}), vocabulary_size=len(PIECES))
COMPILER = ConstraintCompiler(MODEL)

NODE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}, "value": {"type": "integer"}},
    "required": ["value"],
    "additionalProperties": False,
}
PET = {"type": "object", "required": ["kind"]}
PETS = {kind: {**PET, "properties": {"kind": {"const": kind}}} for kind in ("cat", "dog")}

KEPT: dict[str, dict[str, Any]] = {
    "any object": {"type": "object"},
    "any array": {"type": "array", "maxItems": 3},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "types": {"type": ["string", "null"], "maxLength": 2},
    "types of numbers": {"type": ["integer", "string"], "minimum": 5, "maxLength": 1},
    "range": {"type": "integer", "minimum": -20, "maximum": 100},
    "exclusive range": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "multiple": {"type": "integer", "multipleOf": 3, "minimum": -20, "maximum": 100},
    "range without type": {"minimum": 5},
    "length": {"type": "string", "minLength": 2, "maxLength": 4},
    "length without type": {"maxLength": 1},
    "pattern": {"type": "string", "pattern": "^[a-c]{2,4}$"},
    "pattern and length": {"type": "string", "pattern": "^[a-z]+$", "minLength": 3, "maxLength": 5},
    "date": {"type": "string", "format": "date"},
    "date and time": {"type": "string", "format": "date-time"},
    "duration": {"type": "string", "format": "duration"},
    "e-mail": {"type": "string", "format": "email"},
    "host": {"type": "string", "format": "hostname"},
    "IPv4": {"type": "string", "format": "ipv4"},
    "IPv6": {"type": "string", "format": "ipv6"},
    "UUID": {"type": "string", "format": "uuid"},
    "URI": {"type": "string", "format": "uri"},
    "unknown format": {"type": "string", "format": "phone", "maxLength": 5},
    "constant": {"const": {"a": [1, 2.5, "x", None]}},
    "enumeration": {"enum": [1, "a", None, {"x": 1}]},
    "enumeration with type": {"type": "string", "enum": [1, "a"]},
    "required": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "z"]},
    "closed": {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False},
    "additional": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": {"type": "boolean"},
    },
    "patterns of names": {"type": "object", "patternProperties": {"^a": {"type": "integer"}}},
    "only patterns of names": {
        "type": "object",
        "patternProperties": {"^a": {"type": "integer"}},
        "additionalProperties": False,
    },
    "number of properties": {"type": "object", "minProperties": 2, "maxProperties": 3},
    "properties true and false": {"type": "object", "properties": {"a": True, "b": False}, "required": ["a"]},
    "properties without type": {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 4},
    "first items": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    "first items and others": {
        "type": "array",
        "prefixItems": [{"type": "integer"}],
        "items": {"type": "null"},
        "minItems": 2,
        "maxItems": 3,
    },
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 10}]},
    "all of objects": {"allOf": [{**PETS["cat"]}, {"properties": {"n": {"type": "null"}}, "required": ["n"]}]},
    "any of": {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 3}]},
    "one of types": {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}, {"type": "null"}]},
    "one of constants": {"oneOf": [{"const": 1}, {"const": 2}, {"const": "a"}]},
    "one of objects": {"oneOf": list(PETS.values())},
    "one of references": {
        "$defs": PETS,
        "type": "array",
        "items": {"oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in PETS]},
        "maxItems": 3,
    },
    "one of ranges": {"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 7}]},
    "reference": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "reference and more": {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n", "minimum": 3, "maximum": 5},
    "anchor": {"$defs": {"n": {"$anchor": "x", "type": "integer"}}, "$ref": "#x"},
    "nested": {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "null"}}}}},
        "required": ["a"],
    },
    "annotations": {"title": "t", "description": "d", "default": 1, "examples": [1], "type": "integer"},
}

REFUSED: dict[str, dict[str, Any]] = {
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "integer"}, "then": {"minimum": 3}},
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": {"type": "integer"}},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^a"}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "oneOf": {"oneOf": [{"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}]},
    "min/maxProperties": {"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1},
}


def compiled(schema: object) -> Constraint:
    return COMPILER.compile(OutputConstraint(ConstraintKind.JSON_SCHEMA, json.dumps(schema)))


def walk(constraint: Constraint, chance: random.Random) -> str | None:
    """An output; None where the walk got lost in something endless. It prefers what closes."""
    said = bytearray()
    while len(said) < LONGEST:
        allowed = constraint.allowed().tolist()
        if END in allowed and (len(allowed) == 1 or chance.random() < 0.3):
            return said.decode()
        plain = [token for token in allowed if 0x20 <= token < 0x7F or token > END]
        closing = [token for token in plain if chr(token) in '"}],:0123456789tfn' or token > END]
        token = chance.choice(
            closing if closing and chance.random() < 0.6 else plain or [it for it in allowed if it != END]
        )
        constraint.accept(token)
        said += PIECES[token]
        if constraint.complete:
            return said.decode()
    return None


@pytest.mark.parametrize("name", KEPT)
def test_every_output_satisfies_its_schema(name: str) -> None:
    schema = KEPT[name]
    constraint = compiled(schema)
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    chance = random.Random(name)  # noqa: S311  made up, not secret
    outputs = [walk(constraint.after(()), chance) for _ in range(WALKS)]
    ended = [output for output in outputs if output is not None]
    assert ended
    assert [output for output in ended if not checker.is_valid(json.loads(output))] == []


@pytest.mark.parametrize("keyword", REFUSED)
def test_what_can_not_be_kept_to_is_refused_by_name(keyword: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        compiled(REFUSED[keyword])
    assert refused.value.reason is Reason.INVALID_GRAMMAR
    assert keyword in refused.value.message
    assert "coerce" not in refused.value.message
