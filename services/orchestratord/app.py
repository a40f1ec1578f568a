"""The composition root of orchestratord: builds everything once, runs it, ends it in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING

from llama_orch.v2 import (
    app_service_pb2_grpc,
    catalog_service_pb2_grpc,
    delivery_service_pb2_grpc,
    fleet_service_pb2_grpc,
    meta_service_pb2_grpc,
    node_link_service_pb2_grpc,
    placement_service_pb2_grpc,
    session_service_pb2_grpc,
    task_service_pb2_grpc,
)
from llorch.auth import BearerAuth
from llorch.background import TaskSupervisor
from llorch.clock import SystemClock
from llorch.data_dir import held_data_dir
from llorch.identifiers import new_id
from llorch.logs import get_logger
from llorch.options.generation import MAX_REQUEST_BYTES, MAX_REQUEST_FIELDS
from llorch.ports import announce_address
from llorch.rpc.request_limit import RequestLimit
from llorch.rpc.server import RpcServer
from llorch.thread_turns import take_short_turns
from llorch.token_rules import refuse_open_bind
from orchestratord.api import (
    app_service,
    catalog_service,
    delivery_service,
    fleet_service,
    meta_service,
    node_link_service,
    placement_service,
    session_service,
    task_service,
)
from orchestratord.api.app_keys import AppAuth
from orchestratord.api.task_access import TaskAccess
from orchestratord.brain_config import brain_config_of
from orchestratord.convert.scrape_targets import scrape_targets
from orchestratord.core import events
from orchestratord.core.brain import Brain
from orchestratord.metrics.watcher import Watcher
from orchestratord.model_sources import models_of_packages
from orchestratord.runtime import restart
from orchestratord.runtime.audit_trail import AuditTrail
from orchestratord.runtime.authority import Authority
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.keeper import Keeper
from orchestratord.runtime.kept_changes import KeptChanges
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.settings import OrchestratorSettings
from orchestratord.settings_file import events_of_file
from orchestratord.store.interface import Store
from orchestratord.store.sqlite import open_sqlite

if TYPE_CHECKING:
    from orchestratord.metrics.collector import OrchestratorMetrics

TICK_S = 0.25
WAKE_READERS_EVERY_TICKS = 8
_TARGETS_PATH = "/targets"
_PAGE_WITHIN_S = 5.0

_MIB = 1024 * 1024
_OF_CLIENTS = RequestLimit(max_bytes=MAX_REQUEST_BYTES, max_fields=MAX_REQUEST_FIELDS)

_log = get_logger("orchestratord")


async def run(settings: OrchestratorSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain and end."""
    refuse_open_bind(settings.bind, settings.token)
    take_short_turns()
    with held_data_dir(settings.data_dir, "orchestrator") as folder:
        store = await asyncio.to_thread(open_sqlite, folder, settings.database_mib, settings.output_memory_mib)
        try:
            await _serve(settings, store, stop)
        finally:
            await store.close()


async def _serve(settings: OrchestratorSettings, store: Store, stop: asyncio.Event) -> None:
    incarnation = await store.begin_incarnation()
    clock = SystemClock()
    owner = BrainOwner(Brain(brain_config_of(settings), new_id), clock)
    streams = TaskStreams(settings.output_memory_mib * _MIB)
    auth = AppAuth(owner.state.apps.by_key_hash, BearerAuth(settings.token, optional=settings.auth_optional))
    server = RpcServer(name="orchestratord", bind=settings.bind, authenticator=auth, open_to_probes=True)
    async with TaskSupervisor("orchestratord") as tasks:
        node_token = settings.node_token or settings.token
        keeper = Keeper(store, owner.post, clock, tasks)
        authority = Authority(store, incarnation)
        effects = EffectRunner(owner, streams, keeper, authority, clock, tasks, node_token)
        owner.connect(effects.perform)
        owner.watch(AuditTrail(keeper, clock).observe)
        watcher = Watcher(owner.state)
        owner.watch(watcher.observe)
        metrics = cache(partial(_make_metrics, owner, keeper, watcher))
        await _restore(settings, store, owner, streams, clock)
        changes = KeptChanges(owner, keeper)
        _add_services(server, settings, owner, streams, effects, changes, metrics, store, authority, clock)
        tasks.spawn("tick", _tick(owner, streams), forever=True)
        tasks.spawn("keep what was learnt", keeper.run(), forever=True)
        async with _metrics_served(settings, owner, metrics):
            try:
                address = await server.start()
                server.set_serving(True)
                if settings.address_file is not None:
                    announce_address(settings.address_file, address)
                _log.info("serving", address=address, control_epoch=incarnation.control_epoch)
                await stop.wait()
            finally:
                effects.begin_ending()
                await server.stop(settings.drain_s)
                owner.post(events.StopsCutShort())
                await effects.close()
                await keeper.finish()


def _make_metrics(owner: BrainOwner, keeper: Keeper, watcher: Watcher) -> "OrchestratorMetrics":
    # Most systems are never scraped, and the library takes memory.
    from orchestratord.metrics.collector import OrchestratorMetrics

    return OrchestratorMetrics(owner, keeper, watcher)


@asynccontextmanager
async def _metrics_served(
    settings: OrchestratorSettings, owner: BrainOwner, metrics: Callable[[], "OrchestratorMetrics"]
) -> AsyncIterator[None]:
    if settings.metrics_bind is None:
        yield
        return
    from llorch.metrics_server import MetricsServer

    loop = asyncio.get_running_loop()
    registry = metrics().registry(loop)
    token = settings.metrics_token or settings.token
    optional = settings.auth_optional and settings.metrics_token is None
    pages = {_TARGETS_PATH: lambda: asyncio.run_coroutine_threadsafe(_targets(owner), loop).result(_PAGE_WITHIN_S)}
    server = MetricsServer(settings.metrics_bind, registry, token, optional=optional, pages=pages)
    _log.info("metrics", address=server.start())
    try:
        yield
    finally:
        await asyncio.to_thread(server.stop)


async def _targets(owner: BrainOwner) -> bytes:
    """On the loop's thread, where the state is read."""
    return scrape_targets(owner.state.fleet.workers.values())


async def _restore(
    settings: OrchestratorSettings,
    store: Store,
    owner: BrainOwner,
    streams: TaskStreams,
    clock: SystemClock,
) -> None:
    """What the store has, what packages bring, what the settings file defines; then the tasks that need it."""
    await restart.restore_records(store, owner, clock)
    if settings.package_models:
        for event in models_of_packages():
            owner.ask(event)
    for heading, event_of_file in events_of_file(settings.config):
        with heading:
            owner.ask(event_of_file)
    owner.post(events.RecoveryBegan())
    waiting = await restart.restore_tasks(store, owner, streams, clock)
    if waiting:
        _log.info("tasks_restored", waiting=waiting)


def _add_services(
    server: RpcServer,
    settings: OrchestratorSettings,
    owner: BrainOwner,
    streams: TaskStreams,
    effects: EffectRunner,
    changes: KeptChanges,
    metrics: Callable[[], "OrchestratorMetrics"],
    store: Store,
    authority: Authority,
    clock: SystemClock,
) -> None:
    access = TaskAccess(owner, streams)
    tasks = task_service.TaskService(owner, access, streams, effects, settings.write_deadline_s)
    deliveries = delivery_service.DeliveryService(owner, access, server.draining, settings.write_deadline_s)
    catalog = catalog_service.CatalogService(owner, effects, changes, clock)
    fleet = fleet_service.FleetService(owner, effects, changes, authority, clock, settings.write_deadline_s)
    links = node_link_service.NodeLinkService(
        owner, changes, authority, server.draining, nodes_show_token=settings.token is not None
    )
    sessions = session_service.SessionService(owner, clock)
    placement = placement_service.PlacementService(owner, changes, clock)
    apps = app_service.AppService(owner, changes, clock)
    partial = (tasks, deliveries, catalog, fleet, sessions, placement, apps)
    unimplemented = tuple(name for servicer in partial for name in servicer.unimplemented)
    meta = meta_service.MetaService(owner, metrics, store, unimplemented)
    for service, add, servicer in (
        (tasks.service.full_name, task_service_pb2_grpc.add_TaskServiceServicer_to_server, tasks),
        (
            deliveries.service.full_name,
            delivery_service_pb2_grpc.add_DeliveryServiceServicer_to_server,
            deliveries,
        ),
        (catalog.service.full_name, catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server, catalog),
        (fleet.service.full_name, fleet_service_pb2_grpc.add_FleetServiceServicer_to_server, fleet),
        (meta.service.full_name, meta_service_pb2_grpc.add_MetaServiceServicer_to_server, meta),
        (sessions.service.full_name, session_service_pb2_grpc.add_SessionServiceServicer_to_server, sessions),
        (
            placement.service.full_name,
            placement_service_pb2_grpc.add_PlacementServiceServicer_to_server,
            placement,
        ),
        (apps.service.full_name, app_service_pb2_grpc.add_AppServiceServicer_to_server, apps),
    ):
        server.add(service, add, servicer, limit=_OF_CLIENTS)
    server.add(
        node_link_service.SERVICE.full_name, node_link_service_pb2_grpc.add_NodeLinkServiceServicer_to_server, links
    )


async def _tick(owner: BrainOwner, streams: TaskStreams) -> None:
    count = 0
    while True:
        await asyncio.sleep(TICK_S)
        owner.post(events.Tick())
        streams.make_room(owner.post)
        count += 1
        if count % WAKE_READERS_EVERY_TICKS == 0:
            streams.wake_all()
