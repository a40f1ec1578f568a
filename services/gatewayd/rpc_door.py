"""The routes of the contract: every RPC that has one, unary or streaming."""

from collections.abc import Mapping
from functools import partial

from google.protobuf.message import Message

from gatewayd import sse
from gatewayd.event_stream import EventStream, Frames, answer_with
from gatewayd.exchange import Exchange
from gatewayd.request_body import BodyReader
from gatewayd.route_table import RouteTable
from gatewayd.routes import Route
from gatewayd.task_frames import TaskFrames
from gatewayd.transcode import build_answer, build_request
from gatewayd.upstream import Upstream
from llorch.errors import LlorchError
from llorch.rpc.client import Metadata

_AFTER = "after"
_LAST_EVENT_ID = "last-event-id"


class RpcDoor:
    def __init__(self, routes: RouteTable[Route], upstream: Upstream, streams: EventStream, bodies: BodyReader) -> None:
        self._routes = routes
        self._upstream = upstream
        self._streams = streams
        self._bodies = bodies

    async def __call__(self, exchange: Exchange, metadata: Metadata) -> None:
        route, variables = self._routes.find(exchange.method, exchange.raw_path)
        request = await self._read_request(exchange, route, variables)
        if route.rpc.server_streaming:
            frames: Frames = sse
            if _reads_a_task(route):
                frames = TaskFrames(comes_back=_resume(request, exchange))
            await self._streams.relay(exchange, self._upstream.open_stream(route.rpc, request, metadata), frames)
        else:
            response = await self._upstream.call(route.rpc, request, metadata)
            content = build_answer(route, response)
            exchange.answer(route.success_status, content.content_type, content.data)

    def turn_away(self, exchange: Exchange, error: LlorchError) -> None:
        """For a gateway that is full: the reader of a task that comes back is told to come again."""
        route, variables = self._routes.find(exchange.method, exchange.raw_path)
        if not _reads_a_task(route):
            raise error
        request = build_request(route, variables, exchange.query, b"")
        frames = TaskFrames(comes_back=_resume(request, exchange))
        if not frames.may_begin_with(error):
            raise error
        answer_with(exchange, error, frames)

    async def _read_request(self, exchange: Exchange, route: Route, variables: Mapping[str, str]) -> Message:
        if not route.body:
            exchange.ignore_body()
            return build_request(route, variables, exchange.query, b"")
        return await self._bodies.read(exchange, partial(build_request, route, variables, exchange.query))


def _reads_a_task(route: Route) -> bool:
    return route.rpc.server_streaming and _AFTER in route.rpc.input_type.fields_by_name


def _resume(request: Message, exchange: Exchange) -> bool:
    """Whether the reader says where it was. A browser sends the old query and a newer header, so the header wins."""
    last = exchange.headers.get(_LAST_EVENT_ID)
    if last:
        setattr(request, _AFTER, last)
    return bool(getattr(request, _AFTER))
