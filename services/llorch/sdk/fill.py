"""From mappings to messages of the contract, field by field, by the contract's own description.

fill(spec, {"model": "coder", "placement": {"pin": "garage/3090"}})
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from llorch.errors import invalid_field
from llorch.sdk.refusal import unknown, wrong_type
from llorch.sdk.scalar import scalar

Kind = TypeVar("Kind", bound=Message)

_TEXT_ALONE = {"llama_orch.v2.ContentPart": "text"}
"""Messages that may be given as a text, and the field that the text is then."""


def filled(kind: type[Kind], **values: object) -> Kind:
    """A new message with these fields, as `fill` sets them."""
    message = kind()
    fill(message, values)
    return message


def fill(message: Message, values: Mapping[str, object], path: str = "") -> None:
    """Sets fields by the contract's names; None leaves one absent, and one entry may stand for a list of one.

    A message is given as a mapping, or as a message of the contract. `path` goes before names in errors. Raises
    InvalidArgument that names the first field that can't be right, and what it takes.
    """
    fields: Mapping[str, Any] = message.DESCRIPTOR.fields_by_name
    given = {name: value for name, value in values.items() if value is not None}
    for name in values:
        if name not in fields:
            raise unknown(f"{path}{name}", name, fields)
    _check_alternatives([fields[name] for name in given], path)
    for name, value in given.items():
        _set(message, fields[name], value, f"{path}{name}")


def _check_alternatives(fields: Iterable[FieldDescriptor], path: str) -> None:
    """Refuses two alternatives of a oneof: protobuf would keep the last one silently."""
    chosen: dict[str, str] = {}
    for field in fields:
        if field.containing_oneof is not None:
            other = chosen.setdefault(field.containing_oneof.full_name, field.name)
            if other != field.name:
                raise invalid_field(f"{path}{field.name}", f"stands beside '{other}'; give one of them")


def _set(message: Any, field: FieldDescriptor, value: object, path: str) -> None:
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_map(getattr(message, field.name), field.message_type.fields_by_name, value, path)
    elif field.is_repeated:
        _set_list(getattr(message, field.name), field, value, path)
    elif field.message_type is not None:
        _set_message(getattr(message, field.name), value, path)
    else:
        setattr(message, field.name, scalar(field, value, path))


def _set_map(target: Any, entry: Mapping[str, FieldDescriptor], value: object, path: str) -> None:
    if not isinstance(value, Mapping):
        raise wrong_type(path, value, "a mapping")
    for key, one in value.items():
        target[scalar(entry["key"], key, f"{path}[{key!r}]")] = scalar(entry["value"], one, f"{path}[{key!r}]")


def _set_list(target: Any, field: FieldDescriptor, value: object, path: str) -> None:
    if isinstance(value, bytes) or not isinstance(value, str | Mapping | Message | Iterable):
        raise wrong_type(path, value, "a list")
    entries = [value] if isinstance(value, str | Mapping | Message) else value
    for index, one in enumerate(entries):
        if field.message_type is None:
            target.append(scalar(field, one, f"{path}[{index}]"))
        else:
            _set_message(target.add(), one, f"{path}[{index}]")


def _set_message(target: Message, value: object, path: str) -> None:
    kind = target.DESCRIPTOR
    if isinstance(value, Message) and value.DESCRIPTOR.full_name == kind.full_name:
        target.CopyFrom(value)
        return
    if isinstance(value, str) and kind.full_name in _TEXT_ALONE:
        value = {_TEXT_ALONE[kind.full_name]: value}
    if not isinstance(value, Mapping):
        raise wrong_type(path, value, f"a mapping of {', '.join(kind.fields_by_name)}")
    target.SetInParent()
    fill(target, value, f"{path}.")
