"""The composition root: builds everything once, runs it, ends it in order."""

import asyncio
import os
from importlib.metadata import version

from llama_orch.v2.pool_manager_service_pb2_grpc import add_PoolManagerServiceServicer_to_server
from llorch.auth import BearerAuth
from llorch.background import TaskSupervisor
from llorch.clock import SystemClock
from llorch.device_kind import DeviceKind
from llorch.engines import BY_DEVICE
from llorch.identifiers import new_id
from llorch.logs import get_logger
from llorch.ports import announce_address, join_address, split_address
from llorch.rpc.server import RpcServer
from llorch.token_rules import refuse_open_bind
from llorch.worker_state import TERMINAL
from pool_managerd.advertise import advertised_host, local_address
from pool_managerd.api.authenticator import PoolManagerAuth
from pool_managerd.api.pool_manager_servicer import PoolManagerServicer
from pool_managerd.bell import Bell
from pool_managerd.control import ControlGuard
from pool_managerd.data_dir import DataDir, open_data_dir
from pool_managerd.devices.choose import open_inventory
from pool_managerd.devices.inventory import DeviceInventory
from pool_managerd.devices.monitor import DeviceMonitor
from pool_managerd.devices.naming import devices_named
from pool_managerd.host_identity import HostIdentity
from pool_managerd.link.node_link import NodeIdentity, NodeLink
from pool_managerd.link.worker_calls import GrpcWorkerCalls
from pool_managerd.link.worker_stats import WorkerStats
from pool_managerd.models.make_shelf import NodeFacts, make_shelf
from pool_managerd.models.read_ahead import ReadAhead
from pool_managerd.models.reading import Reading
from pool_managerd.models.where_it_fits import where_it_fits
from pool_managerd.node_state import NodeState, Pool
from pool_managerd.pools import plan_pools
from pool_managerd.preflight.checks import look_beside_the_start
from pool_managerd.preflight.finding import Level
from pool_managerd.saved_place import SavedPlace
from pool_managerd.saved_sessions import SavedSessions
from pool_managerd.settings import PoolManagerSettings
from pool_managerd.vocabularies.vocabularies import Vocabularies
from pool_managerd.workers.command import EnginePolicy
from pool_managerd.workers.identity import boot_id
from pool_managerd.workers.journal import Journal
from pool_managerd.workers.ports import parse_worker_ports
from pool_managerd.workers.rules import WorkerRules
from pool_managerd.workers.supervisor import Supervisor

_log = get_logger(__name__)

_SERVICE = "llama_orch.v2.PoolManagerService"
_DRAIN_S = 1.0
_EXIT_GRACE_S = 1.0  # between SIGTERM and SIGKILL of workers when the pool manager itself ends


async def serve(settings: PoolManagerSettings, stop: asyncio.Event) -> None:
    """Runs until `stop` is set. Raises `LlorchError` where it can't start."""
    refuse_open_bind(settings.bind, settings.token)
    inventory = open_inventory(simulate_gpu=settings.simulate_gpu, allow_cpu=settings.allow_cpu)
    try:
        with open_data_dir(settings.data_dir) as data_dir:
            async with TaskSupervisor("pool-managerd") as tasks:
                await PoolManager(settings, data_dir, inventory, tasks).run(stop)
    finally:
        inventory.close()


class PoolManager:
    def __init__(
        self, settings: PoolManagerSettings, data_dir: DataDir, inventory: DeviceInventory, tasks: TaskSupervisor
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._clock = SystemClock()
        self._bell = Bell()
        self._guard = ControlGuard(data_dir.control)
        self._host = HostIdentity(data_dir.host)
        self._pools: tuple[Pool, ...] = ()
        facts = NodeFacts(self._sources_in_use, self._where_it_fits, self._bell.ring)
        self._shelf = make_shelf(settings, data_dir.models, facts, tasks, self._clock)
        engines = {**BY_DEVICE, DeviceKind.SIMULATED: (settings.simulated_engine,)}
        self._monitor = DeviceMonitor(inventory, self._bell.ring, settings.reserve_mib, engines)
        self._saved = SavedSessions(
            data_dir.sessions, data_dir.sessions_key, settings.saved_sessions_mib, self._bell.ring
        )
        self._read_ahead = ReadAhead(tasks, self._note_reading)
        self._supervisor = Supervisor(
            rules=_rules(settings, data_dir, self._saved.place),
            journal=Journal(data_dir.workers),
            devices=self._monitor,
            find_model=self._shelf.find,
            read_ahead=self._read_ahead.begin,
            when_ended=self._saved.look,
            calls=GrpcWorkerCalls(),
            changed=self._bell.ring,
            tasks=tasks,
            clock=self._clock,
        )
        self._vocabularies = Vocabularies(self._clock)
        self._server = RpcServer(
            name="pool-managerd",
            bind=settings.bind,
            authenticator=PoolManagerAuth(
                BearerAuth(settings.token, optional=settings.auth_optional), self._supervisor.worker_by_ready_token
            ),
            open_to_probes=True,
        )
        servicer = PoolManagerServicer(
            node_id=settings.node_id,
            supervisor=self._supervisor,
            shelf=self._shelf,
            vocabularies=self._vocabularies,
            saved=self._saved,
            guard=self._guard,
            state=self.state,
            bell=self._bell,
            draining=self._server.draining,
        )
        self._server.add(_SERVICE, add_PoolManagerServiceServicer_to_server, servicer)

    async def run(self, stop: asyncio.Event) -> None:
        await self._supervisor.recall()
        bound = await self._server.start()
        try:
            await self._open(bound)
            await stop.wait()
            _log.info("stopping")
            if self._settings.stop_workers_on_exit:
                await self._supervisor.close(_EXIT_GRACE_S)
            else:
                self._supervisor.leave()
        finally:
            # Workers live here only where the way was cut short, by an error or a second signal.
            if self._settings.stop_workers_on_exit:
                self._supervisor.kill_all()
            await self._server.stop(_DRAIN_S)
            await self._vocabularies.close()

    def state(self) -> NodeState:
        self._supervisor.require_complete()
        return NodeState(
            devices=self._monitor.devices(),
            pools=self._pools,
            workers=self._supervisor.statuses(),
            models=self._shelf.models(),
            saved=self._saved.state,
        )

    async def _open(self, bound: str) -> None:
        host = advertised_host(bound, self._settings.orchestrator, self._settings.advertise_host)
        await self._monitor.sample(self._supervisor.own_use())
        await self._shelf.open()
        await self._supervisor.open(ready_address=local_address(bound), advertise_host=host)
        self._pools = self._plan_pools()
        self._tasks.spawn("device monitor", self._monitor.run(self._supervisor.own_use), forever=True)
        stats = WorkerStats(self._supervisor.statuses, self._supervisor.note_stats, self._supervisor.note_silence)
        self._tasks.spawn("stats of the workers", stats.run(), forever=True)
        self._tasks.spawn("node link", self._link(join_address(host, split_address(bound)[1])).run(), forever=True)
        self._tasks.spawn("saved sessions", self._saved.run(), forever=True)
        self._tasks.spawn("vocabularies", self._vocabularies.run(), forever=True)
        self._tasks.spawn("preflight", self._preflight())
        self._server.set_serving(True)
        if self._settings.address_file is not None:
            announce_address(self._settings.address_file, bound)
        _log.info(
            "serving",
            address=bound,
            node_id=self._settings.node_id,
            devices=[f"{device.name} ({device.kind.lower()})" for device in self._monitor.devices()],
        )

    async def _preflight(self) -> None:
        """Beside the start, so that a slow driver does not delay workers that are to be taken back."""
        try:
            found = await look_beside_the_start(self._settings, self._monitor.devices())
        except Exception as error:  # noqa: BLE001 - advice; nothing depends on it
            _log.warning("preflight_failed", error=f"{type(error).__name__}: {error}")
            return
        for finding in found:
            tell = _log.error if finding.level is Level.FAILED else _log.warning
            tell("preflight", check=finding.check, found=finding.found, what_to_do=finding.fix)

    def _plan_pools(self) -> tuple[Pool, ...]:
        """Also says which names in the settings fit nothing that is here."""
        devices = self._monitor.devices()
        plan = plan_pools(self._settings.node_id, self._settings.pools, devices)
        reserves = [name for name in self._settings.reserve_mib if not devices_named(name, devices)]
        if plan.unknown or reserves:
            known = [f"{device.index}: {device.name} ({device.device_id})" for device in devices]
            _log.warning("settings_name_no_device", pools=plan.unknown, reserve_mib=reserves, known=known)
        return plan.pools

    def _sources_in_use(self) -> set[str]:
        return {status.spec.source for status in self._supervisor.statuses() if status.state not in TERMINAL}

    def _note_reading(self, source: str, reading: Reading) -> None:
        self._supervisor.note_reading(source, reading)

    def _where_it_fits(self, size_bytes: int) -> str:
        return where_it_fits(size_bytes, self._monitor.devices())

    def _link(self, advertise_address: str) -> NodeLink:
        return NodeLink(
            orchestrator=self._settings.orchestrator,
            token=self._settings.token,
            identity=NodeIdentity(
                self._settings.node_id,
                new_id("pm"),
                version("llama-orch"),
                advertise_address,
                self._settings.labels,
                self._host.host_id,
                boot_id(),
            ),
            state=self.state,
            bell=self._bell,
            guard=self._guard,
            ends_known=self._supervisor.forget_ended,
            clock=self._clock,
        )


def _rules(settings: PoolManagerSettings, data_dir: DataDir, saved: SavedPlace | None) -> WorkerRules:
    environment = dict(os.environ)
    if settings.config is not None:
        environment["LLORCH_CONFIG"] = str(settings.config.absolute())
    bind_host, _ = split_address(settings.bind)
    return WorkerRules(
        bind_host=bind_host,
        stop_grace_s=settings.worker_stop_grace_s,
        policy=EnginePolicy(settings.allow_cpu, settings.sim, data_dir.digests, saved),
        logs=data_dir.logs,
        environment=environment,
        ports=parse_worker_ports(settings.worker_ports),
        stall_s=settings.engine_stall_s,
        orphan_grace_s=settings.orphan_grace_s,
    )
