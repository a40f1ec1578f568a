"""One value of a field of the contract that is no message: checked against its type, never rounded or cut.

Ranges are the orchestrator's business, apart from those of the type itself.
"""

import json
from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsIndex

from google.protobuf.descriptor import FieldDescriptor

from llorch.errors import invalid_field
from llorch.sdk.refusal import unknown, wrong_type

JSON_TEXT = frozenset(
    {
        "llama_orch.v2.ChatInput.template_values",
        "llama_orch.v2.OutputConstraint.json_schema",
        "llama_orch.v2.ToolCall.arguments",
        "llama_orch.v2.ToolDefinition.parameters",
    }
)
"""Fields that hold a JSON object as text, and so may be given as a mapping. The contract tells it in comments alone."""

_INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def scalar(field: FieldDescriptor, value: object, path: str) -> Any:
    """What protobuf takes for it. Raises InvalidArgument that names `path`."""
    if field.cpp_type in _INTEGERS:
        return _integer(*_INTEGERS[field.cpp_type], value, path)
    if field.cpp_type in _FLOATS:
        return _float(value, path)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _bool(value, path)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(field.enum_type, value, path)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(value, path)
    if field.full_name in JSON_TEXT and isinstance(value, Mapping):
        value = _json_text(value, path)
    return text(value, path, "text or a mapping" if field.full_name in JSON_TEXT else "text")


def text(value: object, path: str, takes: str = "text") -> str:
    """Text that UTF-8 can carry."""
    if not isinstance(value, str):
        raise wrong_type(path, value, takes)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid_field(path, "is not text that UTF-8 can carry") from error
    return value


def _integer(least: int, most: int, value: object, path: str) -> int:
    takes = f"a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise wrong_type(path, value, takes)
    try:
        number = value.__index__()
    except TypeError as error:  # an array of numbers has the method, too
        raise wrong_type(path, value, takes) from error
    if not least <= number <= most:
        raise wrong_type(path, value, takes)
    return number


def _float(value: object, path: str) -> float:
    """Also a number of another library, such as NumPy's."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        raise wrong_type(path, value, "a number")
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError) as error:  # an array of numbers has the method, too
        raise wrong_type(path, value, "a number that a float can hold") from error


def _bool(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(path, value, "True or False")
    return value


def _bytes(value: object, path: str) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise wrong_type(path, value, "bytes")
    return bytes(value)


def _enum(enum: Any, value: object, path: str) -> int:
    """By number or by name."""
    if not isinstance(value, str):
        return _integer(-(2**31), 2**31 - 1, value, path)
    if value not in enum.values_by_name:
        raise unknown(path, value, enum.values_by_name)
    return int(enum.values_by_name[value].number)


def _json_text(value: Mapping[object, object], path: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid_field(path, f"can't be written as JSON: {error}") from error
