"""The readers of tasks, over one call to the orchestrator while that lasts.

With a call for each reader the library would take more of the gateway's time for every event than all else that is done
for it (docs/adr/0038-deliveries.md).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import grpc

from gatewayd.delivery import Delivery
from gatewayd.task_events import TaskEvents
from llama_orch.v2 import delivery_service_pb2 as pb2
from llama_orch.v2 import delivery_service_pb2_grpc
from llorch.background import raise_if_cancelled
from llorch.clock import Clock
from llorch.errors import (
    DeadlineExceeded,
    Internal,
    LlorchError,
    PermissionDenied,
    Reason,
    Unauthenticated,
    Unimplemented,
)
from llorch.exception_groups import root_of
from llorch.logs import get_logger
from llorch.rpc.client import DuplexCall, Metadata, call
from llorch.rpc.incoming import ended_by_peer

_NOT_ASKED_AGAIN_FOR_S = 60.0
_REFUSED = (Unimplemented, Unauthenticated, PermissionDenied)

_log = get_logger("gatewayd")

_Call = DuplexCall[pb2.DeliverRequest, pb2.DeliverResponse]


class NotOffered(Exception):
    """The orchestrator is of an earlier release, or takes no delivery from a gateway that has no token of its own."""


class Deliveries:
    """The call shows the channel's own token; those of clients are shown for each reader."""

    def __init__(self, channel: grpc.aio.Channel, call_timeout_s: float, clock: Clock) -> None:
        self._stub = delivery_service_pb2_grpc.DeliveryServiceStub(channel)
        self._call_timeout_s = call_timeout_s
        self._clock = clock
        self._open: Delivery | None = None
        self._wanted = asyncio.Event()
        self._not_before = 0.0

    async def run(self) -> NoReturn:
        """Makes the call, again and again, while there are readers. To be run beside them."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._open is not None:
                await self._deliver(self._open)
                raise_if_cancelled()

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
        if self._open is None or self._open.is_ending:
            self._open = Delivery()
            self._wanted.set()
        return self._open

    async def _enter(self, delivery: Delivery) -> tuple[int, TaskEvents]:
        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await delivery.enter()
        except _REFUSED:
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
        except Exception as raised:  # noqa: BLE001  # it ends these readers and not the gateway
            ended_with = _told(root_of(raised))
            if isinstance(ended_with, _REFUSED):
                self._not_before = self._clock.monotonic() + _NOT_ASKED_AGAIN_FOR_S
        finally:
            if self._open is delivery:
                self._open = None
            delivery.end(ended_with)


async def _tell(events: _Call, delivery: Delivery) -> None:
    """Until there is nothing more to tell, or the call is over; why it is, its other side is told."""
    with suppress(LlorchError):
        while (request := await delivery.to_tell()) is not None:
            await events.send(request)
        await events.close()


def _told(error: BaseException) -> LlorchError:
    if isinstance(error, LlorchError):
        return error
    _log.error("delivery_failed", exc_info=error)
    return Internal(Reason.INTERNAL, "an internal error ended this stream; the gateway's log has it")
