"""Takes a request apart field by field, so that no field that a client sends is ignored."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from gatewayd.json_codec import json_text
from gatewayd.message_shape import check_message, join
from gatewayd.scalar_shape import wrong_type
from llorch.errors import FieldViolation, InvalidArgument, Reason, invalid_field

Json = dict[str, Any]


class Fields:
    """One object of a request. `finish` refuses by name what was not taken. A null is the same as no field."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise wrong_type(path or "the body", "an object", value)
        self._left: Json = {name: part for name, part in value.items() if part is not None}
        self._known: list[str] = []
        self._path = path

    def place(self, name: str) -> str:
        """How errors name a field."""
        return join(self._path, name)

    def take(self, name: str) -> Any:
        """None where it is absent."""
        self._known.append(name)
        return self._left.pop(name, None)

    def take_text(self, name: str) -> str | None:
        text: str | None = self._typed(name, str, "a string")
        return text

    def take_flag(self, name: str) -> bool | None:
        flag: bool | None = self._typed(name, bool, "true or false")
        return flag

    def take_items(self, name: str) -> list[tuple[Any, str]]:
        """The items of a list, each with how errors name it. Empty where the field is absent."""
        items = self._typed(name, list, "a list") or []
        return [(item, f"{self.place(name)}[{number}]") for number, item in enumerate(items)]

    def take_json(self, name: str) -> str:
        """An object as JSON text; empty where it is absent."""
        value = self._typed(name, dict, "an object")
        try:
            return "" if value is None else json_text(value)
        except ValueError:
            raise invalid_field(self.place(name), "it has a number that is too large") from None

    def take_object(self, name: str) -> "Fields | None":
        value = self.take(name)
        return None if value is None else Fields(value, self.place(name))

    def need_text(self, name: str) -> str:
        text = self.take_text(name)
        if text is None:
            raise invalid_field(self.place(name), "it is missing")
        return text

    def take_only(self, name: str, *accepted: Any) -> None:
        """A field of which nothing but these values is supported."""
        value = self.take(name)
        if value is not None and not any(value == each and type(value) is type(each) for each in accepted):
            raise self.unsupported(name)

    def unsupported(self, name: str, instead: str = "leave it out") -> InvalidArgument:
        place = self.place(name)
        return InvalidArgument(
            Reason.UNSUPPORTED_OPTION,
            f"{place}: it is not supported here, or not with this value; {instead}",
            violations=(FieldViolation(place, "not supported"),),
        )

    def finish(self, unsupported: Mapping[str, str] | None = None) -> None:
        """`unsupported` are fields that OpenAI has and this API has not, with what to do instead."""
        for name in self._left:
            if unsupported is not None and name in unsupported:
                raise self.unsupported(name, unsupported[name])
            raise self._unknown(name)

    def _unknown(self, name: str) -> InvalidArgument:
        near = difflib.get_close_matches(name, self._known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "leave it out"
        place = self.place(name if len(name) <= 100 else f"{name[:100]}…")
        return InvalidArgument(
            Reason.UNKNOWN_FIELD,
            f"{place} is no field of the request; {hint}",
            violations=(FieldViolation(place, hint),),
        )

    def _typed(self, name: str, kind: type, described: str) -> Any:
        value = self.take(name)
        if value is not None and not isinstance(value, kind):
            raise wrong_type(self.place(name), described, value)
        return value


def fill(message: Message, values: Json, path: str = "") -> None:
    """Sets fields of the contract, after checking that the values fit them."""
    kind: Any = message.DESCRIPTOR  # the stubs know two classes of it
    check_message(values, kind, path)
    json_format.ParseDict(values, message)


def take_into(message: Message, fields: Fields, names: Iterable[str]) -> None:
    """Fields that have the same name and meaning here as in the contract."""
    taken = {name: fields.take(name) for name in names}
    fill(message, {name: value for name, value in taken.items() if value is not None})
