"""Where schemas are inside of a JSON schema: what else has the same names, such as an example, is none. Pure."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
_ONES = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
_MOST_DIGITS = 10


def subschemas(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """The schema, and all that are objects in it or are referred to, each with its JSON pointer."""
    left: list[tuple[str, object]] = [("", schema)]
    seen: set[int] = set()
    while left:
        pointer, part = left.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        yield pointer, part
        left.append((str(part.get("$ref"))[1:], resolved(schema, part.get("$ref"))))
        left += [(f"{pointer}/{name}", part.get(name)) for name in _ONES]
        for name in _LISTS:
            if isinstance(listed := part.get(name), list):
                left += [(f"{pointer}/{name}/{at}", item) for at, item in enumerate(listed)]
        for name in _MAPS:
            if isinstance(named := part.get(name), dict):
                left += [(f"{pointer}/{name}/{key}", item) for key, item in named.items()]


def resolved(schema: Schema, reference: object) -> object:
    """What a reference into the same schema means; None for any other, and where nothing is."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: object = schema
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(key)
        elif isinstance(found, list) and key.isdecimal() and len(key) < _MOST_DIGITS and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found if reference == "#" or reference.startswith("#/") else None
