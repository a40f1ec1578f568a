"""The composition root: builds everything once, runs it, and takes it down in order."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from llama_orch.v2 import worker_service_pb2, worker_service_pb2_grpc
from llorch.auth import BearerAuth
from llorch.background import TaskSupervisor
from llorch.clock import Clock, SystemClock
from llorch.errors import LlorchError
from llorch.logs import get_logger
from llorch.ports import announce_address
from llorch.rpc.server import RpcServer
from llorch.saved_sessions import SAVE_WITHIN_S
from llorch.token_rules import refuse_open_bind
from worker_orcd.api.worker_servicer import WorkerServicer
from worker_orcd.engines.protocol import Engine
from worker_orcd.engines.registry import REGISTRY
from worker_orcd.pool_manager_link import PoolManagerLink
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.run_table import RunTable
from worker_orcd.self_test import self_test
from worker_orcd.settings import WorkerSettings

if TYPE_CHECKING:
    from llorch.metrics_server import MetricsServer

DRAIN_S = 2.0
"""How long cancelled runs have to end, and then streams to send what they have."""

METRICS_PORTS = 100
"""From that of `metrics_bind` on: as many workers of a host can be scraped. An operator opens them in the firewall."""

SERVICE = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name

T = TypeVar("T")
_log = get_logger("worker-orcd")


async def run(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Until `stop` is set, the Shutdown RPC comes, or the pool manager is gone for good.

    What is opened is closed in reverse: the server, the background tasks, the engine, the link.
    """
    refuse_open_bind(settings.bind, settings.access_token, "access_token")
    if settings.metrics_bind is not None:
        refuse_open_bind(settings.metrics_bind, settings.metrics_token, "metrics_token")
    clock = SystemClock()
    async with AsyncExitStack() as opened:
        link = _open_link(settings, clock)
        if link is not None:
            opened.push_async_callback(link.close)
        engine = await _built(settings, link)
        opened.push_async_callback(engine.close)
        tasks = await opened.enter_async_context(TaskSupervisor("worker-orcd"))
        servicer = WorkerServicer(settings.worker_id, stop, link.move_to if link is not None else None)
        server = _build_server(settings, servicer)
        address = await server.start()
        opened.push_async_callback(server.stop, DRAIN_S)
        _log.info("listening", address=address, worker_id=settings.worker_id)

        stopped = tasks.spawn("wait for the end", stop.wait())
        if link is not None:
            link.listens(address, engine.load_progress)
            tasks.spawn("reports to the pool manager", _end_as_orphan(link, stop))
        keeper = await _unless(stopped, _load(engine, link, clock))
        if keeper is None:
            return
        tasks.spawn("engine", engine.watch(), forever=True)
        tasks.spawn("sweep of the runs", keeper.sweep_forever(), forever=True)
        metrics_address = ""
        if (metrics := _metrics_of(settings, keeper)) is not None:
            opened.push_async_callback(asyncio.to_thread, metrics.stop)
            metrics_address = _listening(metrics)
        servicer.open(keeper, metrics_address)
        server.set_serving(True)
        if settings.address_file is not None:
            announce_address(settings.address_file, address)
        if link is not None:
            link.is_ready(address, replace(engine.info(), metrics_address=metrics_address))
        _log.info("ready", address=address)
        await stopped
        server.set_serving(False)
        await _drain(keeper, servicer)
        await engine.save_sessions(servicer.save_s, SAVE_WITHIN_S)


def _build_server(settings: WorkerSettings, servicer: WorkerServicer) -> RpcServer:
    server = RpcServer(name="worker-orcd", bind=settings.bind, authenticator=BearerAuth(settings.access_token))
    server.add(SERVICE, worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, servicer)
    return server


def _metrics_of(settings: WorkerSettings, keeper: RunKeeper) -> "MetricsServer | None":
    if settings.metrics_bind is None:
        return None
    # Most workers serve none, and the library takes memory.
    from llorch.metrics_server import MetricsServer
    from worker_orcd.metrics import registry_of

    return MetricsServer(settings.metrics_bind, registry_of(keeper), settings.metrics_token)


def _listening(metrics: "MetricsServer") -> str:
    """Where it listens; empty where it can't: a model that is loaded answers all the same.

    All workers of a host have the same settings, so each takes the first port that is free.
    """
    try:
        address = metrics.start(METRICS_PORTS)
    except (LlorchError, OSError) as error:
        _log.error("metrics_not_served", why=str(error))
        return ""
    _log.info("metrics", address=address)
    return address


def _open_link(settings: WorkerSettings, clock: Clock) -> PoolManagerLink | None:
    if settings.ready_address is None:
        return None
    return PoolManagerLink(
        settings.ready_address, settings.ready_token, settings.worker_id, settings.orphan_grace_s, clock
    )


async def _built(settings: WorkerSettings, link: PoolManagerLink | None) -> Engine:
    try:
        return REGISTRY[settings.engine]().build(settings)
    except LlorchError as error:
        await _report_failure(link, error)
        raise


async def _load(engine: Engine, link: PoolManagerLink | None, clock: Clock) -> RunKeeper:
    """Loads and tests the engine."""
    try:
        await engine.load()
        info = engine.info()
        keeper = RunKeeper(engine, RunTable(clock, info.max_admitted), clock)
        report = await self_test(keeper, clock)
    except LlorchError as error:
        await _report_failure(link, error)
        raise
    _log.info(
        "engine_ready",
        engine=info.engine,
        model=info.model,
        slots=info.slots,
        load_ms=info.load_ms,
        first_token_ms=report.first_token_ms,
        decode_ms=report.decode_ms,
        cancel_ms=report.cancel_ms,
    )
    return keeper


async def _report_failure(link: PoolManagerLink | None, error: LlorchError) -> None:
    if link is not None:
        await link.report_failure(error)


async def _end_as_orphan(link: PoolManagerLink, stop: asyncio.Event) -> None:
    await link.wait_orphaned()
    stop.set()


async def _drain(keeper: RunKeeper, servicer: WorkerServicer) -> None:
    """Cancels what runs, waits until the engine let go of it, and lets the stream send the ends."""
    try:
        async with asyncio.timeout(DRAIN_S):
            await keeper.drain()
    except TimeoutError:
        _log.warning("runs_did_not_end", unfinished=keeper.table.unfinished, waited_s=DRAIN_S)
    servicer.close()


async def _unless(stopped: "asyncio.Task[Any]", work: Coroutine[Any, Any, T]) -> T | None:
    """The work's result; None if the end came first, after the work was cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        await asyncio.wait({task})
