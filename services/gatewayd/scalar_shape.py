"""Whether a JSON value fits a field that is no message: numbers, enums, text, bytes, booleans."""

import base64
import binascii
import difflib
import math
import sys
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from llorch.errors import FieldViolation, InvalidArgument, Reason, invalid_field

_F = FieldDescriptor

_WHOLE: dict[int, tuple[int, int]] = {
    _F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    _F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _F.CPPTYPE_UINT32: (0, 2**32 - 1),
    _F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_KINDS: dict[int, str] = {
    **dict.fromkeys(_WHOLE, "whole number"),
    _F.CPPTYPE_FLOAT: "number",
    _F.CPPTYPE_DOUBLE: "number",
    _F.CPPTYPE_BOOL: "true or false",
    _F.CPPTYPE_ENUM: "name",
    _F.CPPTYPE_STRING: "string",
    _F.CPPTYPE_MESSAGE: "object",
}
_LARGEST_FLOAT32 = 3.4028234663852886e38
_LONGEST_SHOWN = 40


def check_scalar(value: Any, field: FieldDescriptor, path: str) -> None:
    """Raises InvalidArgument: MALFORMED_REQUEST for a wrong type, INVALID_FIELD for a wrong value."""
    kind = field.cpp_type
    if kind in _WHOLE:
        _check_whole(value, field, path)
    elif kind in (_F.CPPTYPE_FLOAT, _F.CPPTYPE_DOUBLE):
        _check_number(value, field, path)
    elif field.enum_type is not None:
        _check_enum(value, field.enum_type, path)
    elif kind == _F.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise wrong_type(path, "true or false", value)
    elif not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    elif field.type == _F.TYPE_BYTES:
        _check_base64(value, path)
    else:
        _check_text(value, path)


def kind_of(field: FieldDescriptor) -> str:
    """What a field holds, in the plural."""
    kind = _KINDS[field.cpp_type]
    return kind if kind == "true or false" else f"{kind}s"


def wrong_type(path: str, wanted: str, value: Any) -> InvalidArgument:
    description = f"{wanted} is needed here, not {_show(value)}"
    return InvalidArgument(
        Reason.MALFORMED_REQUEST, f"{path}: {description}", violations=(FieldViolation(path, description),)
    )


def _check_whole(value: Any, field: FieldDescriptor, path: str) -> None:
    """A string of digits counts as well: JSON readers lose digits of large numbers."""
    number = _as_whole(value)
    if number is None:
        raise wrong_type(path, "a whole number", value)
    low, high = _WHOLE[field.cpp_type]
    if not low <= number <= high:
        wanted = "it can't be negative" if number < low == 0 else f"it has to be from {low} to {high}"
        raise invalid_field(path, f"{wanted} (got {_show(value)})")


def _as_whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdecimal():
        return int(value) if len(value) <= _LONGEST_SHOWN else None
    return None


def _check_number(value: Any, field: FieldDescriptor, path: str) -> None:
    number = _as_number(value)
    if number is None:
        raise wrong_type(path, "a number", value)
    largest = _LARGEST_FLOAT32 if field.cpp_type == _F.CPPTYPE_FLOAT else sys.float_info.max
    if not abs(number) <= largest:
        raise invalid_field(path, f"it has to be a finite number that fits the field (got {_show(value)})")


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and value != value.strip():
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return None


def _check_enum(value: Any, enum: EnumDescriptor, path: str) -> None:
    names = [entry.name for entry in enum.values]
    if isinstance(value, str):
        if value not in names:
            near = difflib.get_close_matches(value.upper(), names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(names)}"
            raise invalid_field(path, f"{_show(value)} is not one of its values; {hint}")
    elif isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(path, f"one of {', '.join(names)}", value)
    elif value not in enum.values_by_number:
        raise invalid_field(path, f"{value} is not one of its values; it takes {', '.join(names)}")


def _check_base64(value: str, path: str) -> None:
    """Both alphabets, with padding or without."""
    try:
        base64.b64decode(value.translate({45: "+", 95: "/"}) + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_field(path, "it has to be bytes in base64") from None


def _check_text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid_field(
            path, f"it has half of a surrogate pair at character {error.start}, which is no text"
        ) from None


def _show(value: Any) -> str:
    """A value as its sender will recognise it, but never much of it."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= _LONGEST_SHOWN else f"a string of {len(value)} characters"
    return "a huge number" if isinstance(value, int) and abs(value) >= 10**_LONGEST_SHOWN else str(value)
