"""Records as JSON, by the types of their fields.

Both directions follow the annotations of a frozen dataclass: text, numbers, bytes (base64), enums, tuples, frozen sets,
mappings with text as keys, optional values, and further dataclasses. Where an annotation leaves a choice of
dataclasses, the name of the class is written along. A field that a stored record lacks gets its default, so that
records of an older release can be read; a field that is not known any more is left out.
"""

import base64
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

_CLASS = "class"
_SCALARS = (str, int, float, bool)


@dataclass(frozen=True, slots=True)
class _Codec:
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def dump(kind: Any, value: object) -> str:
    """`value` as JSON text, by its declared type, which may be a union of dataclasses."""
    return json.dumps(_codec(kind).dump(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def load(kind: Any, text: str) -> Any:
    """The value again. Raises ValueError, KeyError or TypeError for what `dump` never wrote."""
    return _codec(kind).load(json.loads(text))


@cache
def _codec(kind: Any) -> _Codec:
    if kind in _SCALARS:
        return _Codec(_same, float if kind is float else _same)
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
        return _of_sequence(_codec(arguments[0]), tuple)
    if origin is tuple:
        return _of_fixed(tuple(_codec(argument) for argument in arguments))
    if origin is frozenset:
        return _Codec(sorted, frozenset)
    if isinstance(origin, type) and issubclass(origin, Mapping) and arguments[0] is str:
        return _of_mapping(_codec(arguments[1]))
    raise TypeError(f"a record has a field of type {kind}, which can't be kept")


def _of_dataclass(kind: type) -> _Codec:
    hints = typing.get_type_hints(kind)
    codecs = {field.name: _codec(hints[field.name]) for field in dataclasses.fields(kind) if field.init}

    def dump(value: Any) -> dict[str, Any]:
        return {name: codec.dump(getattr(value, name)) for name, codec in codecs.items()}

    def load(stored: dict[str, Any]) -> Any:
        return kind(**{name: codec.load(stored[name]) for name, codec in codecs.items() if name in stored})

    return _Codec(dump, load)


def _of_union(arguments: tuple[Any, ...]) -> _Codec:
    some = tuple(argument for argument in arguments if argument is not type(None))
    inner = _codec(some[0]) if len(some) == 1 else _of_choice(some)
    if len(some) == len(arguments):
        return inner
    return _Codec(
        lambda value: None if value is None else inner.dump(value),
        lambda stored: None if stored is None else inner.load(stored),
    )


def _of_choice(kinds: tuple[type, ...]) -> _Codec:
    codecs = {kind.__name__: _codec(kind) for kind in kinds if dataclasses.is_dataclass(kind)}
    if len(codecs) != len(kinds):
        raise TypeError(f"a record has a choice of {kinds}, and only dataclasses can be told apart")

    def dump(value: Any) -> dict[str, Any]:
        name = type(value).__name__
        return {_CLASS: name, **codecs[name].dump(value)}

    return _Codec(dump, lambda stored: codecs[stored[_CLASS]].load(stored))


def _of_sequence(inner: _Codec, build: Callable[[Any], Any]) -> _Codec:
    return _Codec(lambda value: [inner.dump(item) for item in value], lambda stored: build(map(inner.load, stored)))


def _of_fixed(inner: tuple[_Codec, ...]) -> _Codec:
    return _Codec(
        lambda value: [codec.dump(item) for codec, item in zip(inner, value, strict=True)],
        lambda stored: tuple(codec.load(item) for codec, item in zip(inner, stored, strict=True)),
    )


def _of_mapping(inner: _Codec) -> _Codec:
    return _Codec(
        lambda value: {key: inner.dump(item) for key, item in value.items()},
        lambda stored: {key: inner.load(item) for key, item in stored.items()},
    )


def _same(value: Any) -> Any:
    return value
