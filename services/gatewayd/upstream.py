"""Calls to the orchestrator, for RPCs that are known by their descriptors only."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, Self, cast

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gatewayd.deliveries import Deliveries, NotOffered
from gatewayd.token_mismatch import tokens_differ
from gatewayd.told import View
from gatewayd.unbroken import Attachment, TaskRequest, UnbrokenTask
from llama_orch.v2 import delivery_service_pb2, task_service_pb2
from llorch.errors import LlorchError, Reason, Unauthenticated, Unavailable
from llorch.identifiers import new_id
from llorch.rpc.client import Metadata, call, open_stream

_HEALTH_TIMEOUT_S = 2.0

_TASKS = task_service_pb2.DESCRIPTOR.services_by_name["TaskService"].methods_by_name


class Responses(Protocol):
    """The messages of a stream, for one task to read."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Any: ...

    def end(self, error: LlorchError) -> None:
        """Who reads them gets this error."""
        ...


class Upstream:
    """`shows_token`: whether the channel shows a token where a call has none of its own. `reattach_s`: how long streams
    of tasks look for an orchestrator that was lost.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        deliveries: Deliveries,
        call_timeout_s: float,
        reattach_s: float,
        *,
        shows_token: bool,
    ) -> None:
        self._channel = channel
        self._deliveries = deliveries
        self._shows_token = shows_token
        self._call_timeout_s = call_timeout_s
        self._reattach_s = reattach_s
        self._methods: dict[str, Any] = {}
        self._health = cast("Any", health_pb2_grpc.HealthStub)(channel)

    async def call(
        self, rpc: MethodDescriptor, request: Message, metadata: Metadata, *, timeout_s: float | None = None
    ) -> Message:
        """Raises leaves of the error tree."""
        method = self._method(rpc)
        response: Message = await call(
            method, request, timeout_s=self._call_timeout_s if timeout_s is None else timeout_s, metadata=metadata
        )
        return response

    def open_stream(
        self, rpc: MethodDescriptor, request: Message, metadata: Metadata
    ) -> AbstractAsyncContextManager[Responses]:
        """The responses of a server-streaming RPC; leaving the block cancels it."""
        if isinstance(request, TaskRequest):
            return self.read_task(request, metadata, View.EVENTS)
        return open_stream(self._method(rpc), request, metadata=metadata)

    def read_task(self, request: TaskRequest, metadata: Metadata, view: View) -> UnbrokenTask:
        """The events of a task. A new one has a `request_id`, so that a call that is repeated is the same task."""
        if self._reattach_s and isinstance(request, task_service_pb2.GenerateRequest) and not request.task.request_id:
            request.task.request_id = new_id("gateway")
        return UnbrokenTask(lambda asked: self._attach(asked, metadata), request, view, self._reattach_s)

    @asynccontextmanager
    async def _attach(self, request: TaskRequest, metadata: Metadata) -> AsyncIterator[Attachment]:
        async with AsyncExitStack() as stack:
            attachment: Attachment
            try:
                delivering = self._deliveries.attach(_attaching(request), metadata)
                attachment = await stack.enter_async_context(delivering)
            except NotOffered:
                calling = open_stream(self._method(_rpc_of(request)), request, metadata=metadata)
                attachment = await stack.enter_async_context(calling)
            yield attachment

    async def check_health(self) -> None:
        """Raises Unavailable unless the orchestrator says that it is serving."""
        try:
            response = await call(self._health.Check, health_pb2.HealthCheckRequest(), timeout_s=_HEALTH_TIMEOUT_S)
        except Unauthenticated as error:
            raise tokens_differ(error, shows_token=self._shows_token) from error
        if response.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the orchestrator answers but is not serving")

    def _method(self, rpc: MethodDescriptor) -> Any:
        """Made once per RPC: building one costs more than a call."""
        method = self._methods.get(rpc.full_name)
        if method is None:
            make = self._channel.unary_stream if rpc.server_streaming else self._channel.unary_unary
            method = make(
                f"/{rpc.containing_service.full_name}/{rpc.name}",
                request_serializer=message_factory.GetMessageClass(rpc.input_type).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(rpc.output_type).FromString,
            )
            self._methods[rpc.full_name] = method
        return method


def _rpc_of(request: TaskRequest) -> MethodDescriptor:
    return _TASKS["Generate" if isinstance(request, task_service_pb2.GenerateRequest) else "StreamTask"]


def _attaching(request: TaskRequest) -> delivery_service_pb2.AttachReaderRequest:
    """What a delivery is asked for in place of a call."""
    if isinstance(request, task_service_pb2.GenerateRequest):
        return delivery_service_pb2.AttachReaderRequest(generate=request.task)
    follow = delivery_service_pb2.FollowedTask(task_id=request.task_id, after=request.after)
    return delivery_service_pb2.AttachReaderRequest(follow=follow)
