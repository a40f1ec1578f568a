"""The composition root: builds everything once, runs it, and takes it down in order."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from gatewayd import errors
from gatewayd.deliveries import Deliveries
from gatewayd.door import Api, Door
from gatewayd.event_stream import EventStream
from gatewayd.health import Health
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.server import HttpServer
from gatewayd.key_check import KeyCheck
from gatewayd.long_strings import read_long_strings_fast
from gatewayd.openai import errors as openai_errors
from gatewayd.openai.openai_door import OpenAiDoor
from gatewayd.request_body import BodyReader
from gatewayd.route_table import RouteTable
from gatewayd.routes import read_routes
from gatewayd.rpc_door import RpcDoor
from gatewayd.security import ClientCheck, HostGuard
from gatewayd.settings import GatewaySettings
from gatewayd.slots import Slots
from gatewayd.upstream import Upstream
from llama_orch.v2 import (
    app_service_pb2,
    catalog_service_pb2,
    fleet_service_pb2,
    meta_service_pb2,
    placement_service_pb2,
    session_service_pb2,
    task_service_pb2,
)
from llorch.background import TaskSupervisor
from llorch.clock import SystemClock
from llorch.logs import get_logger
from llorch.ports import announce_address, split_address
from llorch.rpc.client import open_channel
from llorch.rpc.transport_options import CALLS_PER_CONNECTION
from llorch.thread_turns import take_short_turns
from llorch.token_rules import refuse_open_bind

DRAIN_S = 2.0
"""How long streams have to send their end, and calls to be answered."""

_LAST_ANSWERS_S = 0.5
"""Of that: for the refusal of what is not done by then."""

_MOST_CONNECTIONS = 128
"""An orchestrator takes 512, of all its clients. It answers 5,120 calls at once and refuses others, so that none waits
here for a connection, whatever `max_requests` is.
"""

_SERVICES = (
    task_service_pb2,
    session_service_pb2,
    catalog_service_pb2,
    placement_service_pb2,
    fleet_service_pb2,
    app_service_pb2,
    meta_service_pb2,
)
_log = get_logger("gatewayd")


async def run(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Until `stop` is set. Then nothing new is accepted, streams end with DRAINING, and the rest is closed."""
    refuse_open_bind(settings.bind, settings.token)
    read_long_strings_fast()
    take_short_turns()
    limit_log = LimitLog(SystemClock().monotonic)
    with _listening(settings, limit_log) as (server, address):
        async with _orchestrator(settings) as channel, TaskSupervisor("gatewayd") as tasks:
            streams = EventStream(stop, DRAIN_S - _LAST_ANSWERS_S)
            deliveries = Deliveries(channel, settings.call_timeout_s, SystemClock())
            door = build_door(settings, channel, deliveries, streams, limit_log)
            tasks.spawn("deliveries", deliveries.run(), forever=True)
            tasks.spawn("end of streams", streams.end_when_draining())
            serving = tasks.spawn("http server", server.serve(door, stop, DRAIN_S))
            _log.info("ready", address=address, orchestrator=settings.orchestrator)
            if settings.address_file is not None:
                announce_address(settings.address_file, address)
            await serving


def build_door(
    settings: GatewaySettings,
    channel: grpc.aio.Channel,
    deliveries: Deliveries,
    streams: EventStream,
    limit_log: LimitLog,
) -> Door:
    upstream = Upstream(
        channel,
        deliveries,
        settings.call_timeout_s,
        settings.reattach_s,
        shows_token=settings.token is not None,
    )
    bodies = BodyReader(settings.max_body_mib * 2**20, settings.body_timeout_s)
    health, clock = Health(upstream), SystemClock()
    routes = read_routes(orchestrator_services())
    rpc_door = RpcDoor(RouteTable(routes), upstream, streams, bodies)
    openai_door = OpenAiDoor(upstream, streams, bodies, clock, [route.template.text for route in routes])
    return Door(
        HostGuard(split_address(settings.bind)[0], settings.allowed_host, settings.allowed_origin),
        ClientCheck(settings.token, optional=settings.auth_optional),
        KeyCheck(upstream, clock),
        {"/healthz": health.answer_alive, "/readyz": health.answer_ready},
        (Api("/v1/", openai_door, openai_errors), Api("", rpc_door, errors, rpc_door.turn_away)),
        Slots(settings.max_requests, settings.max_per_address, limit_log),
    )


def connections_for(max_requests: int) -> int:
    """How many the gateway may open to its orchestrator."""
    return min(max_requests // CALLS_PER_CONNECTION + 1, _MOST_CONNECTIONS)


def orchestrator_services() -> list[ServiceDescriptor]:
    return [service for module in _SERVICES for service in module.DESCRIPTOR.services_by_name.values()]


@contextmanager
def _listening(settings: GatewaySettings, limit_log: LimitLog) -> Iterator[tuple[HttpServer, str]]:
    server = HttpServer(settings.bind, settings.max_connections, settings.max_per_address, limit_log)
    try:
        yield server, server.listen()
    finally:
        server.close()


@asynccontextmanager
async def _orchestrator(settings: GatewaySettings) -> AsyncIterator[grpc.aio.Channel]:
    most = connections_for(settings.max_requests)
    channel = open_channel(settings.orchestrator, token=settings.token, max_connections=most)
    try:
        yield channel
    finally:
        await channel.close()
