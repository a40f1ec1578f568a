"""A gRPC server as every daemon runs it."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc

from llorch import ports
from llorch.auth import Authenticator
from llorch.errors import Reason, Unimplemented
from llorch.logs import get_logger
from llorch.rpc import health, reflection
from llorch.rpc.call_guard import CallGuard
from llorch.rpc.request_limit import RequestLimit
from llorch.rpc.transport_options import MAX_MESSAGE_BYTES, server_options

AddToServer = Callable[[Any, grpc.aio.Server], None]

# For the `finally` blocks of handlers that were cancelled.
_CLEANUP_S = 2.0
# For statuses that are on their way, and for the library to close its sockets.
_CLOSE_GRACE_S = 0.5
_CLOSE_S = 2.0


class RpcServer:
    """Health, reflection, errors, authentication and drain, around the servicers that are added.

    Handlers are `async def` methods that raise `LlorchError`s and never call `abort`; those of server streams
    use `await context.write(message)`. Build and use it inside of a running loop; use it once.

    `bind` is `host:port`, port 0 for any. `tls` None means plain text. `max_calls` bounds the unary calls that are
    served at once, `max_streams` all other calls. With `open_to_probes`, health and reflection need no token on this
    machine.
    """

    def __init__(
        self,
        *,
        name: str,
        bind: str,
        authenticator: Authenticator,
        tls: grpc.ServerCredentials | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_calls: int = 1024,
        max_streams: int = 4096,
        open_to_probes: bool = False,
    ) -> None:
        self._log = get_logger(name)
        self._bind = bind
        self._tls = tls
        self._guard = CallGuard(
            name,
            authenticator,
            max_calls=max_calls,
            max_streams=max_streams,
            open_to_probes=open_to_probes,
        )
        self._server = grpc.aio.server(options=server_options(max_message_bytes))
        self._services: list[str] = []
        self._health: health.HealthServicer | None = None
        self.draining = asyncio.Event()
        """Set when the drain begins: handlers of endless streams see it and end by themselves."""

    def add(
        self,
        full_service_name: str,
        add_to_server: AddToServer,
        servicer: object,
        *,
        limit: RequestLimit | None = None,
    ) -> None:
        """Before `start`. `add_to_server` is the generated `add_<Service>Servicer_to_server`.

        `limit` holds for what callers send beside `max_message_bytes`.
        """
        self._services.append(full_service_name)
        self._register(add_to_server, servicer, limit=limit)

    async def start(self) -> str:
        """Listens, and returns the bound `host:port`; not serving yet, says health. Raises PortTaken."""
        from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
        from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

        self._health = health.HealthServicer(self._services)
        self._register(add_HealthServicer_to_server, self._health, is_probe=True)
        shown = reflection.ReflectionServicer([*self._services, health.SERVICE, reflection.SERVICE])
        self._register(add_ServerReflectionServicer_to_server, shown, is_probe=True)
        self._server.add_generic_rpc_handlers((_UnknownMethods(self._guard),))
        address = self._listen()
        await self._server.start()
        return address

    def set_serving(self, serving: bool) -> None:
        """Sets what health answers to `Check` and `Watch`, for the server and each service."""
        if self._health is None:
            raise RuntimeError("the server has not been started")
        self._health.set_serving(serving)

    async def stop(self, grace_s: float) -> None:
        """Drains for `grace_s` at most, cancels the rest and waits for its `finally` blocks, then closes."""
        self._guard.start_draining()
        self.draining.set()
        if self._health is not None:
            self._health.set_serving(False)
        if not await self._guard.wait_ended(grace_s):
            self._log.info("drain_time_is_over", grace_s=grace_s)
        await self._guard.cancel_all(_CLEANUP_S)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._server.stop(_CLOSE_GRACE_S)
        except TimeoutError:
            self._log.warning("server_did_not_close", waited_s=_CLOSE_S)

    def _register(
        self,
        add_to_server: AddToServer,
        servicer: object,
        *,
        is_probe: bool = False,
        limit: RequestLimit | None = None,
    ) -> None:
        registry = _Registry(self._server, self._guard, is_probe=is_probe, limit=limit)
        add_to_server(servicer, cast("grpc.aio.Server", registry))

    def _listen(self) -> str:
        host, port = ports.split_address(self._bind)
        host = ports.resolve_bind(host)
        ports.ensure_free(host, port)
        address = ports.join_address(host, port)
        try:
            if self._tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, self._tls)
        except RuntimeError:
            # Another program took the port meanwhile, or the certificate can't be used.
            ports.ensure_free(host, port)
            raise
        return ports.join_address(host, bound)


class _Registry:
    """Stands in for the server while generated code registers, and hands on guarded handlers.

    Only the generic table is used: a server with registered methods waits on one future per method for every
    call that comes.
    """

    def __init__(
        self, server: grpc.aio.Server, guard: CallGuard, *, is_probe: bool, limit: RequestLimit | None
    ) -> None:
        self._server = server
        self._guard = guard
        self._is_probe = is_probe
        self._limit = limit

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same handlers come once more, by name, through the next method."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        guarded = {
            method: self._guard.wrap(f"/{service}/{method}", handler, is_probe=self._is_probe, limit=self._limit)
            for method, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


class _UnknownMethods(grpc.GenericRpcHandler):
    """The last in the table: answers methods without a handler, with a reason like any other refusal."""

    def __init__(self, guard: CallGuard) -> None:
        self._handler = guard.wrap("unknown method", grpc.stream_stream_rpc_method_handler(_refuse_unknown))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


async def _refuse_unknown(_requests: Any, _context: Any) -> None:
    raise Unimplemented(Reason.NOT_IMPLEMENTED, "this server has no such method; reflection lists what it has")
