"""An orchestrator of a few lines: it answers what a test tells it, and remembers what it was asked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from llama_orch.v2 import (
    app_service_pb2_grpc,
    catalog_service_pb2_grpc,
    delivery_service_pb2_grpc,
    fleet_service_pb2_grpc,
    meta_service_pb2_grpc,
    placement_service_pb2_grpc,
    session_service_pb2_grpc,
    task_service_pb2_grpc,
)
from llorch.auth import BearerAuth
from llorch.errors import Reason, Unimplemented
from llorch.rpc.server import RpcServer

from .fake_deliveries import FakeDeliveries

Behaviour = Callable[[Any, Any], Awaitable[Any]]

_SERVICES: dict[str, Any] = {
    "TaskService": task_service_pb2_grpc.add_TaskServiceServicer_to_server,
    "SessionService": session_service_pb2_grpc.add_SessionServiceServicer_to_server,
    "CatalogService": catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server,
    "PlacementService": placement_service_pb2_grpc.add_PlacementServiceServicer_to_server,
    "FleetService": fleet_service_pb2_grpc.add_FleetServiceServicer_to_server,
    "AppService": app_service_pb2_grpc.add_AppServiceServicer_to_server,
    "MetaService": meta_service_pb2_grpc.add_MetaServiceServicer_to_server,
}


class FakeOrchestrator:
    """`on("GetTask", behaviour)` sets what an RPC does; `requests` and `metadata` hold what came, by RPC. What
    is set for Generate and StreamTask is done for readers of deliveries, too.
    """

    def __init__(self, bind: str = "127.0.0.1:0", token: str | None = None, *, offers_deliveries: bool = True) -> None:
        self.address = ""
        self.requests: dict[str, Any] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.ended = asyncio.Event()
        self.deliveries = FakeDeliveries(self.handle)
        self._behaviours: dict[str, Behaviour] = {}
        self._server = RpcServer(name="fake", bind=bind, authenticator=BearerAuth(token), open_to_probes=True)
        for name, add in _SERVICES.items():
            self._server.add(f"llama_orch.v2.{name}", add, _Servicer(self))
        if offers_deliveries:
            add_deliveries = delivery_service_pb2_grpc.add_DeliveryServiceServicer_to_server
            self._server.add("llama_orch.v2.DeliveryService", add_deliveries, self.deliveries)

    def on(self, rpc: str, behaviour: Behaviour) -> None:
        self._behaviours[rpc] = behaviour

    def answer(self, rpc: str, response: Any) -> None:
        async def behaviour(_request: Any, _context: Any) -> Any:
            return response

        self.on(rpc, behaviour)

    def stream(self, rpc: str, *responses: Any, then_wait: bool = False) -> None:
        """Sends the responses; then ends, or says nothing more until it is cancelled, which sets `ended`."""

        async def behaviour(_request: Any, context: Any) -> None:
            try:
                for response in responses:
                    await context.write(response)
                if then_wait:
                    await asyncio.Event().wait()
            finally:
                self.ended.set()

        self.on(rpc, behaviour)

    async def handle(self, rpc: str, request: Any, context: Any) -> Any:
        self.requests[rpc] = request
        self.metadata[rpc] = dict(context.invocation_metadata())
        behaviour = self._behaviours.get(rpc)
        if behaviour is None:
            raise Unimplemented(Reason.NOT_IMPLEMENTED, f"{rpc} comes with a later release")
        return await behaviour(request, context)

    def set_serving(self, serving: bool) -> None:
        self._server.set_serving(serving)

    async def start(self) -> None:
        self.address = await self._server.start()
        self._server.set_serving(True)

    async def stop(self) -> None:
        await self._server.stop(grace_s=0)


class _Servicer:
    """Has every RPC."""

    def __init__(self, fake: FakeOrchestrator) -> None:
        self._fake = fake

    def __getattr__(self, rpc: str) -> Behaviour:
        async def handle(request: Any, context: Any) -> Any:
            return await self._fake.handle(rpc, request, context)

        return handle


@asynccontextmanager
async def running_orchestrator(
    token: str | None = None, *, offers_deliveries: bool = True
) -> AsyncIterator[FakeOrchestrator]:
    fake = FakeOrchestrator(token=token, offers_deliveries=offers_deliveries)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
