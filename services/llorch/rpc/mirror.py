"""Between a frozen dataclass and the message of the contract that has the same fields."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from llorch.rpc.enum_table import EnumTable

Record = TypeVar("Record")
Contract = TypeVar("Contract", bound=Message)


@dataclass(frozen=True, slots=True)
class _Way:
    """Of one field: `dump` takes its value, `load` the message."""

    name: str
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


class Mirror(Generic[Record, Contract]):
    """Copies fields by their names: scalars, lists as tuples, optional values as None where they are not told.

    `enums` are the tables of the enums that occur, `parts` the mirrors of lists of messages, by field. `unused` are the
    fields that only one of the two has. Raises ValueError where they differ otherwise, so that a field that is added to
    one is not forgotten in the other. Nothing is checked: a value of an enum that is not known reads as the default.
    """

    def __init__(
        self,
        record: type[Record],
        message: type[Contract],
        *,
        enums: Iterable[EnumTable[Any, Any]] = (),
        parts: Mapping[str, "Mirror[Any, Any]"] = MappingProxyType({}),
        unused: Collection[str] = (),
    ) -> None:
        ours = {field.name: field for field in fields(record)}  # type: ignore[arg-type]  # it is a dataclass
        theirs: Mapping[str, Any] = message.DESCRIPTOR.fields_by_name
        if (differing := set(ours) ^ set(theirs)) != set(unused):
            raise ValueError(f"{record.__name__} and its message differ in {sorted(differing)}, not in {unused}")
        self._record, self._message = record, message
        self._enums = {name: table for name in ours if name in theirs and (table := _table_of(theirs[name], enums))}
        self._ways = tuple(self._way(ours[name], theirs[name], parts.get(name)) for name in ours if name not in unused)

    def to_proto(self, record: Record) -> Contract:
        return self._message(**{way.name: way.dump(getattr(record, way.name)) for way in self._ways})

    def from_proto(self, message: Contract) -> Record:
        return self._record(**{way.name: way.load(message) for way in self._ways})

    def refuse_unknown(self, message: Contract, path: str) -> None:
        """Raises `InvalidArgument` for a value of an enum that this release does not know."""
        for name, table in self._enums.items():
            if value := getattr(message, name):
                table.from_proto(value, f"{path}.{name}" if path else name)

    def _way(self, ours: "Field[Any]", theirs: Any, part: "Mirror[Any, Any] | None") -> _Way:
        name, read = ours.name, attrgetter(ours.name)
        if part is not None:
            return _Way(name, lambda value: map(part.to_proto, value), lambda it: tuple(map(part.from_proto, read(it))))
        if table := self._enums.get(name):
            if ours.default is MISSING:
                raise ValueError(f"{self._record.__name__}.{name} needs a default, for values of a newer release")
            return _Way(name, table.to_proto, lambda it: table.find(read(it)) or ours.default)
        if theirs.enum_type or theirs.message_type:
            raise ValueError(
                f"{self._record.__name__}.{name} needs the table of its enum, or the mirror of its message"
            )
        if theirs.is_repeated:
            return _Way(name, _same, lambda it: tuple(read(it)))
        if theirs.has_presence:
            return _Way(name, _same, lambda it: read(it) if it.HasField(name) else None)
        return _Way(name, _same, read)


def _table_of(field: Any, tables: Iterable[EnumTable[Any, Any]]) -> EnumTable[Any, Any] | None:
    if field.enum_type is None:
        return None
    return next((table for table in tables if table.enum.full_name == field.enum_type.full_name), None)


def _same(value: Any) -> Any:
    return value
