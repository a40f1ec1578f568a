"""Whether two JSON schemas can hold for the same value: `oneOf` is `anyOf` where no two of its branches can. Pure."""

from math import inf, isfinite
from typing import Any

from worker_orcd.constraint.schema_parts import Schema, resolved, subschemas

_MOST_WORK = 100_000
"""Conditions and listed values that are compared, of one schema: a part of a second."""
_DEEPEST = 40
_MOST_ITEMS = 16
_TYPES = frozenset(("null", "boolean", "integer", "fraction", "string", "array", "object"))
"""As JSON schema has them, but for numbers: `number` is both kinds."""

_Value = Any
Ends = tuple[float, bool]
"""An end of a range, and whether it is out of the range itself."""


class Exclusion:
    """Proves that no value satisfies two schemas; what it can't prove counts as possible. `root` is what references are
    looked up in.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._work = 0
        self._follows = not any("$id" in part for pointer, part in subschemas(root) if pointer)
        """References within a schema of another name start there, and are not followed."""

    def overlapping(self, branches: list[object]) -> tuple[int, int] | None:
        """The first two that may hold at once; None if no two can."""
        finite = [values for branch in branches if (values := _values(branch)) is not None]
        if len(finite) == len(branches) and len(set[_Value]().union(*finite)) == sum(map(len, finite)):
            return None  # a list of constants may be long
        for later, branch in enumerate(branches):
            for earlier in range(later):
                if not self.excludes(branches[earlier], branch):
                    return earlier, later
        return None

    def excludes(self, one: object, other: object, depth: int = 0) -> bool:
        if self._work > _MOST_WORK or depth > _DEEPEST:
            return False
        ours, theirs = self._conditions(one), self._conditions(other)
        self._work += 1 + len(ours) * len(theirs)
        return self._work <= _MOST_WORK and (
            any(self._exclude(mine, other_one, depth) for mine in ours for other_one in theirs)
            or self._each_alternative_excludes(ours, other, depth)
            or self._each_alternative_excludes(theirs, one, depth)
        )

    def _conditions(self, schema: object) -> list[object]:
        """All that have to hold with it: itself, what it refers to, and the parts of its `allOf`; each once."""
        found: dict[int, object] = {}
        left = [schema]
        while left:
            part = left.pop()
            if id(part) in found:
                continue
            found[id(part)] = part
            self._work += 1
            if isinstance(part, dict):
                if "$ref" in part and self._follows:
                    left.append(resolved(self._root, part["$ref"]))
                left += _listed(part, "allOf")
        return list(found.values())

    def _each_alternative_excludes(self, conditions: list[object], other: object, depth: int) -> bool:
        for condition in conditions:
            for name in ("anyOf", "oneOf"):
                branches = _listed(condition, name)
                if branches and all(self.excludes(branch, other, depth + 1) for branch in branches):
                    return True
        return False

    def _exclude(self, one: object, other: object, depth: int) -> bool:
        if one is False or other is False:
            return True
        if not isinstance(one, dict) or not isinstance(other, dict):
            return False
        ours, theirs = _values(one), _values(other)
        self._work += len(ours or ()) + len(theirs or ())
        if ours is not None and theirs is not None:
            return not ours & theirs
        common = _types(one) & _types(other)
        return all(self._exclude_as(kind, one, other, depth) for kind in common)

    def _exclude_as(self, kind: str, one: Schema, other: Schema, depth: int) -> bool:
        match kind:
            case "integer" | "fraction":
                return _apart(_range(one), _range(other))
            case "string":
                return _sizes_apart(one, other, "minLength", "maxLength")
            case "array":
                return _sizes_apart(one, other, "minItems", "maxItems") or self._items_exclude(one, other, depth)
            case "object":
                return _sizes_apart(one, other, "minProperties", "maxProperties") or any(
                    self.excludes(_property(one, name), _property(other, name), depth + 1)
                    for name in _required(one) | _required(other)
                )
        return False

    def _items_exclude(self, one: Schema, other: Schema, depth: int) -> bool:
        """What both have at the same place, where there has to be one."""
        least = max(_number(one, "minItems", 0), _number(other, "minItems", 0))
        return any(
            self.excludes(_item(one, at), _item(other, at), depth + 1) for at in range(int(min(least, _MOST_ITEMS)))
        )


def _listed(schema: object, name: str) -> list[object]:
    listed = schema.get(name) if isinstance(schema, dict) else None
    return listed if isinstance(listed, list) else []


def _values(schema: object) -> set[_Value] | None:
    """All that are allowed at most, where the schema lists them."""
    if isinstance(schema, dict) and "const" in schema:
        return {_comparable(schema["const"])}
    if isinstance(schema, dict) and isinstance(schema.get("enum"), list):
        return {_comparable(value) for value in schema["enum"]}
    return None


def _comparable(value: object) -> _Value:
    """Equal for equal values of JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return "object", frozenset((key, _comparable(item)) for key, item in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_comparable, value))
    return _type_of(value), value


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    names = {float: "fraction", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _types(schema: Schema) -> frozenset[str]:
    values = _values(schema)
    listed = frozenset(kind for kind, _ in values) if values is not None else _TYPES
    told = schema.get("type")
    if not isinstance(told, str | list):
        return listed
    names = {told} if isinstance(told, str) else {name for name in told if isinstance(name, str)}
    return listed & (names | {"integer", "fraction"} if "number" in names else names)


def _number(schema: Schema, name: str, otherwise: float) -> float:
    value = schema.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    return otherwise if isinstance(value, float) and not isfinite(value) else value


def _range(schema: Schema) -> tuple[Ends, Ends]:
    """Older drafts say by true that `minimum` or `maximum` is out itself."""
    values = _values(schema)
    if values is not None:
        numbers = [value for kind, value in values if kind in ("integer", "fraction")]
        return (min(numbers), False), (max(numbers), True)
    low, high = _number(schema, "minimum", -inf), _number(schema, "maximum", inf)
    above, below = _number(schema, "exclusiveMinimum", -inf), _number(schema, "exclusiveMaximum", inf)
    return (
        max((low, schema.get("exclusiveMinimum") is True), (above, True)),
        min((high, schema.get("exclusiveMaximum") is not True), (below, False)),
    )


def _apart(one: tuple[Ends, Ends], other: tuple[Ends, Ends]) -> bool:
    return _ends_before(one[1], other[0]) or _ends_before(other[1], one[0])


def _ends_before(high: Ends, low: Ends) -> bool:
    """`high` has its second part the other way round: whether the end is in the range."""
    return high[0] < low[0] or (high[0] == low[0] and (low[1] or not high[1]))


def _sizes_apart(one: Schema, other: Schema, least: str, most: str) -> bool:
    return _number(one, most, inf) < _number(other, least, 0) or _number(other, most, inf) < _number(one, least, 0)


def _required(schema: Schema) -> set[str]:
    return {name for name in _listed(schema, "required") if isinstance(name, str)}


def _property(schema: Schema, name: str) -> object:
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return True if "patternProperties" in schema else schema.get("additionalProperties", True)


def _item(schema: Schema, at: int) -> object:
    """Older drafts have the first items in a list `items`, and what comes after them in `additionalItems`."""
    listed, others = ("items", "additionalItems") if isinstance(schema.get("items"), list) else ("prefixItems", "items")
    first = _listed(schema, listed)
    return first[at] if at < len(first) else schema.get(others, True)
