"""Records as JSON, by the types of their fields and the names that `store.names` gives them.

Both directions follow the annotations of a frozen dataclass: text, numbers, bytes (base64), enums by value, tuples,
frozen sets, mappings with text as keys, optional values, and further dataclasses. Where an annotation leaves a choice
of dataclasses, the tag of the one is written along. A stored dataclass has all of its fields and no others: what an
earlier release has written is made so by `upgrade`, once, before anything is loaded.
"""

import base64
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from orchestratord.store import names

TAG = "kind"
# JSON has one type of numbers.
_STORED_AS: Mapping[type, type | tuple[type, ...]] = {str: str, bool: bool, int: (int, float), float: (int, float)}


class Unreadable(ValueError):
    """Stored JSON that is not of the present form; begins with the place of the fault in it."""


def _unchanged(stored: Any, present: int) -> None:
    """For what has no dataclass in it, and so no changes."""


@dataclass(frozen=True, slots=True)
class _Codec:
    """`upgrade` changes what is stored where it is."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    upgrade: Callable[[Any, int], None] = _unchanged


def dump(kind: Any, value: object) -> str:
    """`value` as JSON text, by its declared type, which may be a union of dataclasses."""
    return _text(_codec(kind).dump(value))


def load(kind: Any, text: str) -> Any:
    """The value again. Raises Unreadable for what `dump` does not write."""
    codec = _codec(kind)
    return _at("", lambda stored: codec.load(json.loads(stored)), text)


def upgrade(kind: Any, text: str, present: int) -> str:
    """What was written in format `present`, as this release writes it. Raises Unreadable where that can't be done."""
    codec = _codec(kind)
    stored = _at("", json.loads, text)
    _at("", lambda whole: codec.upgrade(whole, present), stored)
    return _text(stored)


def _text(stored: Any) -> str:
    return json.dumps(stored, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _at(place: str | int, read: Callable[[Any], Any], stored: Any) -> Any:
    """The result of `read`; if that fails, the place is put before the error's message."""
    try:
        return read(stored)
    except Unreadable as error:
        raise Unreadable(f"{place}.{error}" if place != "" else str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"{place}: {error!r}") from error


@cache
def _codec(kind: Any) -> _Codec:
    if kind in _STORED_AS:
        return _of_scalar(kind)
    if kind is bytes:
        return _Codec(lambda value: base64.b64encode(value).decode(), base64.b64decode)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _Codec(lambda value: value.value, kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    return _of_generic(kind, typing.get_origin(kind), typing.get_args(kind))


def _of_generic(kind: Any, origin: Any, arguments: tuple[Any, ...]) -> _Codec:
    if origin in (typing.Union, types.UnionType):
        return _of_union(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _of_sequence(_codec(arguments[0]))
    if origin is tuple:
        return _of_fixed(tuple(_codec(argument) for argument in arguments))
    if origin is frozenset:
        return _Codec(sorted, frozenset)
    if isinstance(origin, type) and issubclass(origin, Mapping) and arguments[0] is str:
        return _of_mapping(_codec(arguments[1]))
    raise TypeError(f"a record has a field of type {kind}, which can't be kept")


def _of_scalar(kind: type) -> _Codec:
    allowed = _STORED_AS[kind]

    def check(stored: Any) -> Any:
        if not isinstance(stored, allowed) or isinstance(stored, bool) is not (kind is bool):
            raise TypeError(f"{stored!r} is no {kind.__name__}")
        return stored

    return _Codec(lambda value: value, (lambda stored: float(check(stored))) if kind is float else check)


def _of_dataclass(kind: type) -> _Codec:
    shape = names.shape_of(kind)
    hints = typing.get_type_hints(kind)
    attributes = {name: shape.attribute(name) for name in shape.fields}
    codecs = {name: _codec(hints[attribute]) for name, attribute in attributes.items()}

    def dump(value: Any) -> dict[str, Any]:
        return {name: codec.dump(getattr(value, attributes[name])) for name, codec in codecs.items()}

    def load(stored: dict[str, Any]) -> Any:
        _refuse_other_fields(stored, codecs)
        return kind(**{attributes[name]: _at(name, codec.load, stored[name]) for name, codec in codecs.items()})

    def upgrade(stored: dict[str, Any], present: int) -> None:
        for change in names.changes_since(kind, present):
            change.apply(stored)
        for name in codecs.keys() & stored.keys():
            _upgrade_at(name, codecs[name], stored[name], present)

    return _Codec(dump, load, upgrade)


def _refuse_other_fields(stored: dict[str, Any], fields: Mapping[str, Any]) -> None:
    for name in sorted(stored.keys() - fields.keys()):
        raise Unreadable(f"{name}: this release knows no such field")
    for name in sorted(fields.keys() - stored.keys()):
        raise Unreadable(f"{name}: the field is missing")


def _upgrade_at(place: str | int, codec: _Codec, stored: Any, present: int) -> None:
    _at(place, lambda part: codec.upgrade(part, present), stored)


def _of_union(arguments: tuple[Any, ...]) -> _Codec:
    some = tuple(argument for argument in arguments if argument is not type(None))
    inner = _codec(some[0]) if len(some) == 1 else _of_choice(some)
    if len(some) == len(arguments):
        return inner
    return _Codec(
        lambda value: None if value is None else inner.dump(value),
        lambda stored: None if stored is None else inner.load(stored),
        lambda stored, present: None if stored is None else inner.upgrade(stored, present),
    )


def _of_choice(kinds: tuple[type, ...]) -> _Codec:
    tags = {kind: _tag(kind) for kind in kinds}
    codecs = {tag: _codec(kind) for kind, tag in tags.items()}
    if len(codecs) != len(kinds):
        raise TypeError(f"a record has a choice of {kinds}, of which two have the same tag in store/names.py")

    def dump(value: Any) -> dict[str, Any]:
        tag = tags[type(value)]
        return {TAG: tag, **codecs[tag].dump(value)}

    def load(stored: dict[str, Any]) -> Any:
        return which(stored).load({name: part for name, part in stored.items() if name != TAG})

    def which(stored: dict[str, Any]) -> _Codec:
        if (tag := stored.get(TAG)) not in codecs:
            raise Unreadable(f"{TAG}: {tag!r} is none of {', '.join(codecs)}")
        return codecs[tag]

    return _Codec(dump, load, lambda stored, present: which(stored).upgrade(stored, present))


def _tag(kind: type) -> str:
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"a record has a choice with {kind}, and only dataclasses can be told apart")
    shape = names.shape_of(kind)
    if not shape.tag or TAG in shape.fields:
        raise TypeError(
            f"{kind.__name__} is one of several dataclasses: its Shape in store/names.py needs a `tag`, and can have "
            f"no field '{TAG}', which is where the tag is"
        )
    return shape.tag


def _of_sequence(inner: _Codec) -> _Codec:
    return _Codec(
        lambda value: [inner.dump(item) for item in value],
        lambda stored: tuple(_at(number, inner.load, item) for number, item in enumerate(stored)),
        lambda stored, present: _upgrade_each(enumerate(stored), inner, present),
    )


def _of_fixed(inner: tuple[_Codec, ...]) -> _Codec:
    def upgrade(stored: list[Any], present: int) -> None:
        for number, (codec, item) in enumerate(zip(inner, stored, strict=True)):
            _upgrade_at(number, codec, item, present)

    return _Codec(
        lambda value: [codec.dump(item) for codec, item in zip(inner, value, strict=True)],
        lambda stored: tuple(codec.load(item) for codec, item in zip(inner, stored, strict=True)),
        upgrade,
    )


def _of_mapping(inner: _Codec) -> _Codec:
    return _Codec(
        lambda value: {key: inner.dump(item) for key, item in value.items()},
        lambda stored: {key: _at(key, inner.load, item) for key, item in stored.items()},
        lambda stored, present: _upgrade_each(stored.items(), inner, present),
    )


def _upgrade_each(items: Iterable[tuple[str | int, Any]], inner: _Codec, present: int) -> None:
    for place, item in items:
        _upgrade_at(place, inner, item, present)
