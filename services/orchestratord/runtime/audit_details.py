"""The arguments of a change, as JSON of bounded size: without secrets, contents, and values that were not given."""

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from orchestratord.runtime.audit_actions import BY_EVENT
from orchestratord.store import names

LONGEST_BYTES = 4096
"""In UTF-8."""

_SECRET_ENDINGS = ("key", "token", "hash", "secret")
_LENGTHS = (LONGEST_BYTES, 256, 64, 16, 4, 1)
_LEFT_OUT = "…"


def details_of(event: Any) -> str:
    """If all of it is too long, texts, lists and mappings are cut to one length, with how much was left out."""
    for length in _LENGTHS:
        text = _text(_plain(event, length))
        if len(text.encode()) <= LONGEST_BYTES:
            return text
    return _text(dict.fromkeys(_plain(event, 0), _LEFT_OUT))


def _text(plain: Any) -> str:
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def _plain(value: Any, length: int) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, length)
    if isinstance(value, Mapping):
        return _mapping(value, length)
    if isinstance(value, (tuple, list, frozenset)):
        return _items(list(value), length)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)) or value is None:
        return value
    return _cut(str(value.value if isinstance(value, Enum) else value), length)


def _fields(value: Any, length: int) -> dict[str, Any]:
    shape = BY_EVENT.get(type(value)) or names.shape_of(type(value))
    said = {name: getattr(value, shape.attribute(name)) for name in shape.fields}
    return {name: _plain(part, length) for name, part in said.items() if _may_be_told(name, part)}


def _may_be_told(name: str, part: Any) -> bool:
    return part not in (None, "", (), {}) and not name.endswith(_SECRET_ENDINGS)


def _mapping(value: Mapping[Any, Any], length: int) -> dict[str, Any]:
    told = {_cut(str(key), length): _plain(value[key], length) for key in list(value)[:length]}
    return told | ({_LEFT_OUT: f"{len(value) - length} more"} if len(value) > length else {})


def _items(items: list[Any], length: int) -> list[Any]:
    told = [_plain(item, length) for item in items[:length]]
    return [*told, f"{_LEFT_OUT} {len(items) - length} more"] if len(items) > length else told


def _cut(text: str, length: int) -> str:
    return f"{text[:length]}{_LEFT_OUT} {len(text) - length} more characters" if len(text) > length else text
