"""The deliveries of the orchestrator of a few lines: they bring what Generate and StreamTask do."""
# ruff: noqa: N802  # RPCs are named as the contract names them

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from llama_orch.v2 import delivery_service_pb2 as pb2
from llama_orch.v2 import task_service_pb2
from llorch.errors import Internal, LlorchError, Reason
from llorch.rpc.status import status_details
from orchestratord.runtime.delivery import AHEAD_BYTES

Handle = Callable[[str, Any, Any], Awaitable[Any]]

_ID = "d1"


class FakeDeliveries:
    """`handle("Generate", request, context)` is asked what the RPC does; it writes to its context.

    `asked`: how often a reader was to be attached; it is answered while `answers` is set. `says`: the next delivery
    says these bytes once it is open.
    """

    def __init__(self, handle: Handle) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.says: bytes | None = None
        self._handle = handle
        self._outgoing: asyncio.Queue[pb2.Delivered] = asyncio.Queue(maxsize=1)
        self._readers: dict[int, _Reader] = {}

    async def Deliver(self, requests: AsyncIterator[pb2.DeliverRequest], context: Any) -> None:
        hearing = asyncio.create_task(self._hear(requests))
        try:
            await context.write(pb2.DeliverResponse(delivery_id=_ID))
            if self.says is not None:
                await context.write(self.says)
                self.says = None
            while True:
                await context.write(pb2.DeliverResponse(delivered=[await self._outgoing.get()]))
        finally:
            hearing.cancel()
            for number in tuple(self._readers):
                await self._leave(number)

    async def AttachReader(self, request: pb2.AttachReaderRequest, context: Any) -> pb2.AttachReaderResponse:
        """A refusal that is made at once is the answer to this call, as it is with the real one."""
        assert request.delivery_id == _ID
        self.asked += 1
        await self.answers.wait()
        reader = self._readers[request.reader] = _Reader(request.reader, context, self._outgoing)
        reader.task = asyncio.create_task(self._read(reader, *_meant_by(request)))
        await asyncio.sleep(0)
        if reader.refusal is not None:
            raise reader.refusal
        return pb2.AttachReaderResponse()

    async def _read(self, reader: "_Reader", rpc: str, request: Any) -> None:
        try:
            await self._handle(rpc, request, reader)
        except LlorchError as error:
            if not reader.has_written:
                reader.refusal = error
            await self._outgoing.put(_end(reader.number, failure=status_details(error)))
        except Exception:  # noqa: BLE001  # as a call ends whose handler fails
            failure = status_details(Internal(Reason.INTERNAL, "an internal error occurred"))
            await self._outgoing.put(_end(reader.number, failure=failure))
        else:
            await self._outgoing.put(_end(reader.number))

    async def _hear(self, requests: AsyncIterator[pb2.DeliverRequest]) -> None:
        async for request in requests:
            for taken in request.taken:
                if taken.reader in self._readers:
                    self._readers[taken.reader].take(taken.bytes)
            for number in request.left:
                await self._leave(number)

    async def _leave(self, number: int) -> None:
        reader = self._readers.pop(number, None)
        if reader is not None and reader.task is not None:
            reader.task.cancel()
            await asyncio.wait({reader.task})


class _Reader:
    """A handler's context that writes to a delivery."""

    def __init__(self, number: int, context: Any, outgoing: "asyncio.Queue[pb2.Delivered]") -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self.refusal: LlorchError | None = None
        self.has_written = False
        self.invocation_metadata = context.invocation_metadata
        self._outgoing = outgoing
        self._ahead = 0
        self._has_room = asyncio.Event()

    async def write(self, response: Any) -> None:
        self.has_written = True
        while self._ahead >= AHEAD_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        said = response.event.SerializeToString()
        self._ahead += len(said)
        await self._outgoing.put(pb2.Delivered(reader=self.number, event=said))

    def take(self, size: int) -> None:
        self._ahead -= size
        self._has_room.set()


def _meant_by(request: pb2.AttachReaderRequest) -> tuple[str, Any]:
    if request.HasField("generate"):
        return "Generate", task_service_pb2.GenerateRequest(task=request.generate)
    follow = request.follow
    return "StreamTask", task_service_pb2.StreamTaskRequest(task_id=follow.task_id, after=follow.after)


def _end(number: int, failure: bytes = b"") -> pb2.Delivered:
    return pb2.Delivered(reader=number, is_last=True, failure=failure)
