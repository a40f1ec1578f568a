"""The readers of tasks, over one call to the orchestrator while that lasts.

With a call for each reader the library would take more of the gateway's time for every event than all else that is done
for it (docs/adr/0038-deliveries.md).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import grpc

from gatewayd.delivery import Delivery
from gatewayd.task_events import TaskEvents
from llama_orch.v2 import delivery_service_pb2 as pb2
from llama_orch.v2 import delivery_service_pb2_grpc
from llorch.background import TaskSupervisor
from llorch.clock import Clock
from llorch.errors import DeadlineExceeded, LlorchError, PermissionDenied, Reason, Unauthenticated, Unimplemented
from llorch.exception_groups import root_of
from llorch.rpc.client import DuplexCall, Metadata, call
from llorch.rpc.incoming import ended_by_peer

_NOT_ASKED_AGAIN_FOR_S = 60.0

_Call = DuplexCall[pb2.DeliverRequest, pb2.DeliverResponse]


class NotOffered(Exception):
    """The orchestrator is of an earlier release, or takes no delivery from a gateway that has no token of its own."""


class Deliveries:
    """`tasks` run the call, which shows the channel's own token; those of clients are shown for each reader."""

    def __init__(self, channel: grpc.aio.Channel, call_timeout_s: float, tasks: TaskSupervisor, clock: Clock) -> None:
        self._stub = delivery_service_pb2_grpc.DeliveryServiceStub(channel)
        self._call_timeout_s = call_timeout_s
        self._tasks = tasks
        self._clock = clock
        self._open: Delivery | None = None
        self._not_before = 0.0

    @asynccontextmanager
    async def attach(self, request: pb2.AttachReaderRequest, metadata: Metadata) -> AsyncIterator[TaskEvents]:
        """A reader of what the request names, on behalf of the client whose metadata it is; it leaves with the block.

        Raises NotOffered, and the leaves of the error tree that the reader would get by a call of its own.
        """
        delivery = self._delivery()
        number, reader = await self._enter(delivery)
        request.delivery_id, request.reader = delivery.delivery_id, number
        try:
            await call(self._stub.AttachReader, request, timeout_s=self._call_timeout_s, metadata=metadata)
            yield reader
        finally:
            delivery.leave(number)

    def _delivery(self) -> Delivery:
        """The one that is open or begins, or another one."""
        if self._clock.monotonic() < self._not_before:
            raise NotOffered
        if self._open is None:
            self._open = Delivery()
            self._tasks.spawn("delivery of events", self._deliver(self._open))
        return self._open

    async def _enter(self, delivery: Delivery) -> tuple[int, TaskEvents]:
        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await delivery.enter()
        except (Unimplemented, Unauthenticated, PermissionDenied):
            raise NotOffered from None
        except TimeoutError:
            raise DeadlineExceeded(
                Reason.DEADLINE_PASSED, f"the orchestrator did not answer within {self._call_timeout_s:g} s"
            ) from None

    async def _deliver(self, delivery: Delivery) -> None:
        ended_with: LlorchError = ended_by_peer()
        try:
            async with DuplexCall(self._stub.Deliver) as events, asyncio.TaskGroup() as group:
                telling = group.create_task(_tell(events, delivery))
                async for response in events:
                    delivery.hand_out(response)
                telling.cancel()
        except Exception as raised:
            error = root_of(raised)
            if not isinstance(error, LlorchError):
                raise
            ended_with = error
            if isinstance(error, Unimplemented | Unauthenticated | PermissionDenied):
                self._not_before = self._clock.monotonic() + _NOT_ASKED_AGAIN_FOR_S
        finally:
            self._open = None
            delivery.end(ended_with)


async def _tell(events: _Call, delivery: Delivery) -> NoReturn:
    while True:
        await events.send(await delivery.to_tell())
