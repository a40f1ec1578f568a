"""Between our enums and those of the contract, by the names of their members."""

from collections.abc import Collection
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from llorch.errors import invalid_field

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

Member = TypeVar("Member", bound=Enum)
Value = TypeVar("Value", bound=int)

_UNSPECIFIED = "UNSPECIFIED"


class EnumTable(Generic[Member, Value]):
    """`DeviceKind.CUDA` is `DEVICE_KIND_CUDA`: made once from the descriptor, then a look into a dict.

    `unused` are names of the contract, without their prefix, that the members leave out on purpose. Raises ValueError
    unless the two enums have the same names otherwise.
    """

    def __init__(
        self, members: type[Member], contract: "_EnumTypeWrapper[Value]", *, unused: Collection[str] = ()
    ) -> None:
        self.enum = contract.DESCRIPTOR
        self._prefix = contract.DESCRIPTOR.values_by_number[0].name.removesuffix(_UNSPECIFIED)
        told = {name.removeprefix(self._prefix) for name in contract.DESCRIPTOR.values_by_name} - {_UNSPECIFIED}
        if told != {*members.__members__, *unused}:
            raise ValueError(f"{members.__name__} differs from the contract: {sorted(members.__members__)}, {told}")
        self._values = {member: contract.Value(f"{self._prefix}{member.name}") for member in members}
        self._members: dict[int, Member] = {value: member for member, value in self._values.items()}

    def to_proto(self, member: Member) -> Value:
        return self._values[member]

    def find(self, value: int) -> Member | None:
        """None for UNSPECIFIED, for a value of a newer release, and for an unused one."""
        return self._members.get(value)

    def from_proto(self, value: int, field: str) -> Member:
        """Raises `InvalidArgument` that names the field and its values."""
        member = self._members.get(value)
        if member is None:
            *most, last = (f"{self._prefix}{known.name}" for known in self._values)
            raise invalid_field(field, f"has to be {', '.join(most)} or {last}")
        return member
