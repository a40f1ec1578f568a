"""Query parameters and path variables as fields of a request, the way grpc-gateway reads them.

`?page_size=10&placement.pin=a&placement.pin=b` is `{"page_size": "10", "placement": {"pin": ["a", "b"]}}`:
the texts become numbers and enums in protobuf's own JSON mapping, which takes them as strings.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gatewayd.message_shape import find_field, unknown_field
from llorch.errors import InvalidArgument, Reason, invalid_field

MAX_PARAMETERS = 100

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def read_query(query: bytes, message: Descriptor, taken: Iterable[str]) -> dict[str, Any]:
    """`taken` are the paths of the fields that the path or the body fills: the query can't."""
    found: dict[str, Any] = {}
    taken = frozenset(taken)
    for name, value in _parse(query):
        fields = _walk(message, name)
        path = ".".join(field.name for field in fields)
        if any(path == other or path.startswith(f"{other}.") for other in taken):
            raise invalid_field(name, "the path or the body of this request has it, so the query can't")
        _put(found, fields, value, name)
    return found


def read_variables(variables: Mapping[str, str], message: Descriptor) -> dict[str, Any]:
    """What the variables of a path template stand for, e.g. `{"assignment": {"assignment_id": "a"}}`."""
    found: dict[str, Any] = {}
    for path, value in variables.items():
        _put(found, _walk(message, path), value, path)
    return found


def _parse(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "the query is not percent-escaped UTF-8") from None
    except ValueError:
        raise InvalidArgument(
            Reason.MALFORMED_REQUEST, f"the query has more than {MAX_PARAMETERS} parameters"
        ) from None


def _walk(message: Descriptor, path: str) -> list[FieldDescriptor]:
    """The fields that a dotted path goes through; the last one holds the value."""
    fields: list[FieldDescriptor] = []
    inside: Descriptor | None = message
    for name in path.split("."):
        field = find_field(inside, name) if inside is not None else None
        if field is None or (fields and fields[-1].is_repeated):
            raise unknown_field(inside or message, path)
        fields.append(field)
        inside = field.message_type
    if inside is not None and not inside.full_name.startswith("google.protobuf."):
        raise invalid_field(path, f"it is an object; name one of its fields, e.g. {path}.{_example(inside)}")
    return fields


def _put(found: dict[str, Any], fields: list[FieldDescriptor], value: str, name: str) -> None:
    *outer, last = fields
    inside = found
    for field in outer:
        inside = inside.setdefault(field.name, {})
    item = _item(value, last, name)
    if last.is_repeated:
        inside.setdefault(last.name, []).append(item)
    elif last.name in inside:
        raise invalid_field(name, "it takes one value, and the query has it more than once")
    else:
        inside[last.name] = item


def _item(value: str, field: FieldDescriptor, name: str) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if value not in _BOOLEANS:
            raise invalid_field(name, "it has to be true or false")
        return _BOOLEANS[value]
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    return value


def _example(message: Descriptor) -> str:
    return message.fields[0].name if message.fields else "…"
