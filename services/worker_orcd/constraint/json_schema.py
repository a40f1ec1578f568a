"""JSON schemas from clients: bounded before anything with a stack of its own sees them. Pure."""

import json
from collections.abc import Iterator

from llorch.options.generation import MAX_CONSTRAINT_NESTING
from worker_orcd.constraint.bounds import invalid_constraint
from worker_orcd.constraint.exclusion import Exclusion
from worker_orcd.constraint.schema_parts import Schema, subschemas
from worker_orcd.run_spec import OutputConstraint

MAX_REFERENCES = 500
"""The matcher follows chains of them on its stack."""

_WHITE_SPACE = " |\\n[ \\t]{0,40}"
"""Between two tokens of JSON at most. Without a bound, a model that has nothing more to say writes empty lines."""

_OPTIONS = "x-guidance"
_OWN_OPTIONS = {"coerce_one_of": True, "whitespace_pattern": _WHITE_SPACE}
"""The matcher's own options may stand in a schema; these replace them. `oneOf` is taken as `anyOf`, once it is known
that no two of its branches can hold at once.
"""

FORMATS = frozenset(("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"))
"""Which the matcher keeps to. Others are annotations, as the standard has it."""

_OPENING, _CLOSING = "([{", ")]}"


def json_schema(constraint: OutputConstraint) -> dict[str, object]:
    """The schema as the matcher gets it. Raises InvalidArgument."""
    nesting = json_nesting(constraint.text)
    if nesting > MAX_CONSTRAINT_NESTING:
        raise invalid_constraint(constraint, f"is nested {nesting} deep; {MAX_CONSTRAINT_NESTING} are allowed")
    try:
        schema = json.loads(constraint.text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise invalid_constraint(constraint, f"is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise invalid_constraint(constraint, "has to be a JSON object")
    references = sum("$ref" in values for values in _objects(schema))
    if references > MAX_REFERENCES:
        raise invalid_constraint(constraint, f"has {references} references; {MAX_REFERENCES} are allowed")
    parts = list(subschemas(schema))
    _refuse_overlaps(constraint, schema, parts)
    for _, part in parts:
        if isinstance(known := part.get("format"), str) and known not in FORMATS:
            del part["format"]
    return {**schema, _OPTIONS: _OWN_OPTIONS}


def _refuse_overlaps(constraint: OutputConstraint, schema: Schema, parts: list[tuple[str, Schema]]) -> None:
    """Also where only the matcher finds a schema, by a reference of another form."""
    exclusion = Exclusion(schema)
    pointers = {id(part): pointer for pointer, part in parts}
    for values in _objects(schema):
        branches = values.get("oneOf")
        if isinstance(branches, list) and (overlap := exclusion.overlapping(branches)):
            where = f"#{pointers.get(id(values), '/…')}/oneOf: branches {overlap[0]} and {overlap[1]}"
            raise invalid_constraint(
                constraint,
                f"{where} may hold at once, which can't be kept out; tell them apart by a required property with a "
                "constant of its own, or use anyOf",
            )


def json_nesting(text: str) -> int:
    """How deep brackets are nested outside of strings, whether the text is JSON or not."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            in_string = True
        elif character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth -= 1
    return deepest


def _objects(schema: object) -> Iterator[dict[str, object]]:
    """All objects in a schema, at any depth."""
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")
