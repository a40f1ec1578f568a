"""A real server with three scripted methods, and a real channel to it, in one loop."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from llorch.auth import Authenticator, BearerAuth
from llorch.rpc.client import open_channel
from llorch.rpc.server import RpcServer

SERVICE = "test.Scripted"


@dataclass
class Script:
    """What the server's methods do; each test sets those that it uses."""

    unary: Callable[[Any, Any], Awaitable[Any]] | None = None
    stream: Callable[[Any, Any], Awaitable[None]] | None = None
    duplex: Callable[[Any, Any], Awaitable[None]] | None = None

    async def answer_unary(self, request: Any, context: Any) -> Any:
        assert self.unary is not None
        return await self.unary(request, context)

    async def answer_stream(self, request: Any, context: Any) -> None:
        assert self.stream is not None
        await self.stream(request, context)

    async def answer_duplex(self, requests: Any, context: Any) -> None:
        assert self.duplex is not None
        await self.duplex(requests, context)


def add_to_server(script: Any, server: Any) -> None:
    """What generated code does."""
    codec: dict[str, Any] = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(script.answer_unary, **codec),
        "Stream": grpc.unary_stream_rpc_method_handler(script.answer_stream, **codec),
        "Duplex": grpc.stream_stream_rpc_method_handler(script.answer_duplex, **codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


class Methods:
    """What a generated stub is."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        codec: dict[str, Any] = {
            "request_serializer": StringValue.SerializeToString,
            "response_deserializer": StringValue.FromString,
        }
        self.channel = channel
        self.unary: Any = channel.unary_unary(f"/{SERVICE}/Unary", **codec)
        self.stream: Any = channel.unary_stream(f"/{SERVICE}/Stream", **codec)
        self.duplex: Any = channel.stream_stream(f"/{SERVICE}/Duplex", **codec)


@dataclass
class Serving:
    server: RpcServer
    address: str
    methods: Methods


@asynccontextmanager
async def serving(
    script: Script, *, authenticator: Authenticator | None = None, token: str | None = None, **options: Any
) -> AsyncIterator[Serving]:
    server = RpcServer(name="scripted", bind="127.0.0.1:0", authenticator=authenticator or BearerAuth(None), **options)
    server.add(SERVICE, add_to_server, script)
    address = await server.start()
    server.set_serving(True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, 0)
        channel = await stack.enter_async_context(open_channel(address, token=token))
        yield Serving(server, address, Methods(channel))
