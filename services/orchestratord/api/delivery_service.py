"""DeliveryService: the events of many tasks over one call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

from llama_orch.v2 import delivery_service_pb2 as pb2
from llorch.errors import LlorchError, invalid_field
from llorch.rpc.slow_reader import write_with_deadline
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.task_access import TaskAccess
from orchestratord.core.lives.task_life import MOST_READERS
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.deliveries import Deliveries
from orchestratord.runtime.delivery import Delivery

_LOOK_FOR_SLOW_EVERY_S = 1.0
_ENDS_WITHIN_S = 1.0
"""How long a gateway has to close its side once the time to drain is over; less than handlers have to clean up."""


class DeliveryService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["DeliveryService"]):
    """`draining` is set when this server ends: a delivery ends then as soon as it has no reader.

    `write_deadline_s`: a gateway that does not read for so long is dropped, with all of its readers, and so is a reader
    of one that does.
    """

    def __init__(self, owner: BrainOwner, access: TaskAccess, draining: asyncio.Event, write_deadline_s: float) -> None:
        self._owner = owner
        self._access = access
        self._draining = draining
        self._write_deadline_s = write_deadline_s
        self._deliveries = Deliveries(write_deadline_s)

    async def Deliver(self, requests: AsyncIterator[pb2.DeliverRequest], context: Any) -> None:
        news = asyncio.Event()
        with self._deliveries.open(news.set) as delivery:
            hearing = asyncio.create_task(self._hear(requests, delivery), name="requests of a delivery")
            draining = asyncio.create_task(self._draining.wait(), name="drain of a delivery")
            for task in (hearing, draining):
                task.add_done_callback(lambda _: news.set())
            try:
                await self._write(pb2.DeliverResponse(delivery_id=delivery.delivery_id), context)
                while not hearing.done() and (len(delivery) or not draining.done()):
                    await self._write_news(delivery, news, context)
                await self._end(hearing, context)
            except asyncio.CancelledError:
                if self._draining.is_set():  # its time is over
                    await self._end_soon(hearing, context)
                raise
            finally:
                hearing.cancel()
                draining.cancel()
            await hearing

    async def AttachReader(self, request: pb2.AttachReaderRequest, context: Any) -> pb2.AttachReaderResponse:
        delivery = self._deliveries.find(request.delivery_id)
        delivery.check_number(request.reader)
        reads = request.WhichOneof("reads")
        if reads is None:
            raise invalid_field("reads", "is missing; set generate or follow")
        if reads == "generate":
            task_id, after = self._access.submit(request.generate, durable=False).task_id, ""
        else:
            task_id, after = request.follow.task_id, request.follow.after
        delivery.attach(request.reader, self._access.attach(task_id, after))
        return pb2.AttachReaderResponse()

    async def _write_news(self, delivery: Delivery, news: asyncio.Event, context: Any) -> None:
        """What there is now, or what comes within a while."""
        news.clear()
        frame = delivery.next_frame(self._owner.now())
        if frame is not None:
            await self._write(frame, context)
            return
        try:
            async with asyncio.timeout(_LOOK_FOR_SLOW_EVERY_S):
                await news.wait()
        except TimeoutError:
            return

    async def _end_soon(self, hearing: "asyncio.Task[None]", context: Any) -> None:
        with suppress(TimeoutError, LlorchError, grpc.aio.BaseError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await self._end(hearing, context)

    async def _end(self, hearing: "asyncio.Task[None]", context: Any) -> None:
        """Returns when the gateway has closed its side."""
        if not hearing.done():
            await self._write(pb2.DeliverResponse(ends=True), context)
            await asyncio.wait({hearing})

    async def _write(self, frame: pb2.DeliverResponse, context: Any) -> None:
        await write_with_deadline(context, frame, self._write_deadline_s)

    async def _hear(self, requests: AsyncIterator[pb2.DeliverRequest], delivery: Delivery) -> None:
        """Until the gateway says nothing more."""
        async for request in requests:
            _check(request)
            for number in request.left:
                delivery.leave(number)
            for taken in request.taken:
                delivery.take(taken.reader, taken.bytes, self._owner.now())


def _check(request: pb2.DeliverRequest) -> None:
    for field, entries in (("left", len(request.left)), ("taken", len(request.taken))):
        if entries > MOST_READERS:
            raise invalid_field(field, f"has {entries} entries; at most {MOST_READERS} readers are told of at once")
