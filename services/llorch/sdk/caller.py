"""One connection to an orchestrator, and how anything is called through it."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

import grpc

from llama_orch.v2 import (
    app_service_pb2_grpc,
    catalog_service_pb2_grpc,
    fleet_service_pb2_grpc,
    meta_service_pb2_grpc,
    placement_service_pb2_grpc,
    session_service_pb2_grpc,
    task_service_pb2_grpc,
)
from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unauthenticated, Unavailable
from llorch.rpc.client import call, open_channel, open_stream
from llorch.rpc.few_at_once import FewAtOnce
from llorch.rpc.incoming import Incoming
from llorch.rpc.pauses import Pauses
from llorch.rpc.status import is_from_server
from llorch.rpc.transport_options import CALLS_PER_CONNECTION
from llorch.sdk.connection import find_connection
from llorch.sdk.failures import Unreachable
from llorch.sdk.reach import Reach
from llorch.sdk.why_unreachable import why_unreachable

Item = TypeVar("Item")

SILENCE_S = 30.0
"""Streams carry a heartbeat every 10 s; after this much silence the orchestrator is taken to be gone."""

# Of streams, and as many of other calls. What a channel may not send waits there without a word.
_MAX_CONNECTIONS = 8


class Caller:
    """What the groups of calls of `AsyncClient` share."""

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        reconnect_for_s: float = 30.0,
    ) -> None:
        self._connection = find_connection(address, token)
        self._timeout_s = timeout_s
        self._reconnect_for_s = reconnect_for_s
        self._reach = Reach()
        most = _MAX_CONNECTIONS * CALLS_PER_CONNECTION
        self._streams = FewAtOnce(
            most, f"this client has {most} streams open; end some of them, or open more with another client"
        )
        self._open: dict[str, Stubs] = {}
        """By address, of which a name of this machine may have one for each family."""

    @property
    def address(self) -> str:
        return self._connection.address

    async def close(self) -> None:
        while self._open:
            _, stubs = self._open.popitem()
            await stubs.close()

    async def _call(self, method: Any, request: Any, *, timeout_s: float | None = None) -> Any:
        """Made once."""
        try:
            return await self._try(method, request, timeout_s)
        except (Unavailable, DeadlineExceeded, Unauthenticated) as error:
            raise self._explained(error) from error.__cause__

    async def _ask(self, method: Any, request: Any, *, timeout_s: float | None = None) -> Any:
        """For calls that do nothing when they are made a second time: repeated while the orchestrator that has answered
        before is away, until `reconnect_for_s` have passed.
        """
        pauses = Pauses(self._reconnect_for_s)
        while True:
            try:
                return await self._try(method, request, timeout_s)
            except (Unavailable, DeadlineExceeded, Unauthenticated) as error:
                if not self._reach.may_pass(error) or not await pauses.wait(error.retry_after_ms):
                    raise self._explained(error) from error.__cause__

    async def _try(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        answer = await call(method, request, timeout_s=timeout_s or self._timeout_s)
        self._reach.note_answer()
        return answer

    async def _all_pages(
        self, method: Any, request: Any, items: Callable[[Any], Sequence[Item]], *, most: int | None = None
    ) -> list[Item]:
        found: list[Item] = []
        while True:
            page = await self._ask(method, request)
            found.extend(items(page))
            if not page.next_page_token or (most is not None and len(found) >= most):
                return found[:most]
            request.page_token = page.next_page_token

    async def _read(
        self, method: Any, request: Any, *, idle_timeout_s: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """The messages of a stream that is not opened again when it breaks."""
        try:
            async with self._open_stream(method, request, idle_timeout_s=idle_timeout_s) as messages:
                async for message in messages:
                    yield message
        except (Unavailable, DeadlineExceeded, Unauthenticated) as error:
            raise self._explained(error) from error.__cause__

    @asynccontextmanager
    async def _open_stream(
        self, method: Any, request: Any, *, idle_timeout_s: float | None = None
    ) -> AsyncIterator[Incoming[Any]]:
        """Raises ResourceExhausted where this client has as many streams as it may."""
        async with (
            self._streams.place(),
            open_stream(method, request, idle_timeout_s=idle_timeout_s) as messages,
        ):
            yield messages

    def _explained(self, error: LlorchError) -> LlorchError:
        """Names the orchestrator that did not answer, where the library says only that no answer came, and says where
        the token would come from that it asks for.
        """
        if isinstance(error, Unauthenticated):
            return self._connection.explained(error)
        if is_from_server(error):
            return error  # about what the orchestrator asked in its turn: a node, the Hub
        if isinstance(error, DeadlineExceeded) or error.reason is Reason.UPSTREAM_UNAVAILABLE:
            return Unreachable(self.address, why_unreachable(self.address, error))
        return error

    @property
    def _stubs(self) -> "Stubs":
        self._connection = self._connection.now()
        address = self._connection.address
        if address not in self._open:
            token = partial(self._token_for, address)
            self._open[address] = Stubs(partial(open_channel, address, token=token, max_connections=_MAX_CONNECTIONS))
        return self._open[address]

    def _token_for(self, address: str) -> str | None:
        """What the call that begins shows there: a kept token counts while its `llorch up` runs, and the next up has
        another.
        """
        self._connection = self._connection.now()
        return self._connection.token if self._connection.address == address else None


class Stubs:
    """The channels and what is called through them. Made at its first use, because that is inside of the loop."""

    def __init__(self, open_one: Callable[[], grpc.aio.Channel]) -> None:
        self._channels = _Channels(calls=open_one(), streams=open_one())
        channel = cast("grpc.aio.Channel", self._channels)
        self.tasks = task_service_pb2_grpc.TaskServiceStub(channel)
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.fleet = fleet_service_pb2_grpc.FleetServiceStub(channel)
        self.placement = placement_service_pb2_grpc.PlacementServiceStub(channel)
        self.apps = app_service_pb2_grpc.AppServiceStub(channel)
        self.sessions = session_service_pb2_grpc.SessionServiceStub(channel)
        self.meta = meta_service_pb2_grpc.MetaServiceStub(channel)

    async def close(self) -> None:
        await self._channels.close()


class _Channels:
    """What stubs use of a channel. Streams have connections of their own, so that a cancel, for example, always finds
    room beside them. Each connects when it is used.
    """

    def __init__(self, *, calls: grpc.aio.Channel, streams: grpc.aio.Channel) -> None:
        self._both = (calls, streams)
        self.unary_unary = calls.unary_unary
        self.unary_stream = streams.unary_stream

    async def close(self) -> None:
        for channel in self._both:
            await channel.close()
