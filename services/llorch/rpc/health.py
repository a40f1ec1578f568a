"""`grpc.health.v1.Health` that follows the state of the server, for `Check` and `Watch`."""

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from llorch.errors import NotFound, Reason

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """One state for the server and each of its services; not serving until told.

    The library's own servicer is not used: it writes to its watchers under a lock, so that a watcher that does not
    read keeps the state from changing.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._serving = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # its name
        if request.service not in self._services:
            raise NotFound(Reason.INVALID_FIELD, f"no service named {request.service!r} is served here")
        return self._response(request.service)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        statuses = {service: self._response(service) for service in self._services}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        told = None
        while True:
            changed = self._changed
            response = self._response(request.service)
            if response != told:
                await context.write(response)
                told = response
            await changed.wait()

    def _response(self, service: str) -> Any:
        if service not in self._services:
            return _Status(status=_Status.SERVICE_UNKNOWN)
        return _Status(status=_Status.SERVING if self._serving else _Status.NOT_SERVING)
