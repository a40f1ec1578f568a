"""RPCs that the contract names and this release does not do: each answers UNIMPLEMENTED with the reason."""

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from google.protobuf.descriptor import ServiceDescriptor

from llorch.errors import Reason, Unimplemented


class PartialServicer:
    """Base of servicers: gives a subclass an answer for every method of its service that it does not have.

    class FleetService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["FleetService"])
    """

    service: ClassVar[ServiceDescriptor]
    unimplemented: ClassVar[tuple[str, ...]] = ()
    """The methods that were filled in, as "Service/Method"."""

    def __init_subclass__(cls, *, service: ServiceDescriptor) -> None:
        missing = [method.name for method in service.methods if not hasattr(cls, method.name)]
        for name in missing:
            setattr(cls, name, _refusal(f"{service.name}/{name}"))
        cls.service = service
        cls.unimplemented = tuple(f"{service.name}/{name}" for name in missing)


def not_yet(service: ServiceDescriptor) -> PartialServicer:
    """A servicer for a service of which nothing is done yet."""

    class NotYet(PartialServicer, service=service):
        pass

    return NotYet()


def _refusal(name: str) -> Callable[..., Any]:
    async def refuse(_self: object, _request: object, _context: object) -> NoReturn:
        raise Unimplemented(
            Reason.NOT_IMPLEMENTED,
            f"{name} comes with a later release; MetaService/GetCapabilities lists what this one does not do",
        )

    return refuse
