"""Whether JSON fits a message, checked before protobuf's own mapping reads it.

The mapping refuses the same things, but its errors name neither the place nor what would be right. The rules
are those of https://protobuf.dev/programming-guides/json, but for NaN and the infinities, which are refused.
Paths in errors are those of the client's document, e.g. `generate.sampling.top_k`.
"""

import difflib
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gatewayd.scalar_shape import check_scalar, kind_of, wrong_type
from llorch.errors import FieldViolation, InvalidArgument, Reason, invalid_field


def check_message(value: Any, message: Descriptor, path: str = "") -> None:
    """Raises InvalidArgument with the first thing in `value` that does not fit."""
    if message.full_name.startswith("google.protobuf."):
        _check_well_known(value, message, path)
        return
    if not isinstance(value, dict):
        raise wrong_type(path or "the body", "an object", value)
    given: dict[str, str] = {}
    for name, part in value.items():
        field = find_field(message, name)
        if field is None:
            raise unknown_field(message, name, path)
        if part is not None:
            _refuse_second(field, name, given, path)
            _check_field(part, field, join(path, name))


def find_field(message: Descriptor, name: str) -> FieldDescriptor | None:
    """By its name in the contract, or the lowerCamelCase of it."""
    return message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def unknown_field(message: Descriptor, name: str, path: str = "") -> InvalidArgument:
    known = [field.name for field in message.fields]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'no fields at all'}"
    place = join(path, name if len(name) <= 100 else f"{name[:100]}…")
    return InvalidArgument(
        Reason.UNKNOWN_FIELD,
        f"{place} is no field of the request; {hint}",
        violations=(FieldViolation(place, hint),),
    )


def _refuse_second(field: FieldDescriptor, name: str, given: dict[str, str], path: str) -> None:
    """One value per field, whichever of its names is used, and one field per oneof."""
    oneof = field.containing_oneof
    key = field.name if oneof is None else f"oneof {oneof.name}"
    if key in given:
        raise invalid_field(join(path, name), f"it can't be given together with {join(path, given[key])}")
    given[key] = name


def _check_field(value: Any, field: FieldDescriptor, path: str) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _check_map(value, field.message_type, path)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise wrong_type(path, f"a list of {kind_of(field)}", value)
        for index, item in enumerate(value):
            _check_single(item, field, f"{path}[{index}]")
    else:
        _check_single(value, field, path)


def _check_map(value: Any, entry: Descriptor, path: str) -> None:
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    fields = entry.fields_by_name
    for key, item in value.items():
        place = f"{path}[{key!r}]"
        check_scalar(key, fields["key"], place)
        _check_single(item, fields["value"], place)


def _check_single(value: Any, field: FieldDescriptor, path: str) -> None:
    if field.message_type is not None:
        check_message(value, field.message_type, path)
    else:
        check_scalar(value, field, path)


def _check_well_known(value: Any, message: Descriptor, path: str) -> None:
    """Timestamps, durations and their like have forms of their own, which protobuf's mapping checks."""
    try:
        json_format.ParseDict(value, message_factory.GetMessageClass(message)())
    except (json_format.ParseError, ValueError, TypeError, AttributeError):
        raise invalid_field(path, f"it is not the JSON form of a {message.name}") from None
