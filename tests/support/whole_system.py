"""Orchestrator, pool manager and gateway in this event loop, with worker processes that run the simulated engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx

import gatewayd.app
import orchestratord.app
import pool_managerd.app
from gatewayd.settings import GatewaySettings
from llama_orch.v2 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    meta_service_pb2_grpc,
    model_pb2,
    node_pb2,
    task_event_pb2,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)
from llorch.errors import Unavailable
from llorch.rpc.client import call, open_channel, open_stream
from orchestratord.settings import OrchestratorSettings
from pool_managerd.settings import PoolManagerSettings
from support.gguf_writer import smallest_model, smallest_ranker

SERVING_WITHIN_S = 10.0
CALL_S = 5.0
SILENT_S = 15.0
FOUND_WITHIN_S = 20.0

CRASH = "[crash]"
"""A prompt with this makes the worker abort at its sixth token, as native code does."""
STUCK = "[stuck]"
FAIL = "[fail]"

SIM = {
    "decode_tokens_per_s": 400,
    "faults": [
        {"kind": "abort", "at_token": 5, "marker": CRASH},
        {"kind": "hang", "at_token": 5, "marker": STUCK},
        {"kind": "fail_run", "at_token": 5, "marker": FAIL},
    ],
}


@dataclass
class WholeSystem:
    address: str
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    folder: Path
    lives: "OrchestratorLives | None" = None

    def __post_init__(self) -> None:
        self.tasks = task_service_pb2_grpc.TaskServiceStub(self.channel)
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(self.channel)
        self.fleet = fleet_service_pb2_grpc.FleetServiceStub(self.channel)
        self.meta = meta_service_pb2_grpc.MetaServiceStub(self.channel)

    async def generate(
        self, task: task_pb2.TaskSpec, into: list[task_event_pb2.TaskEvent] | None = None
    ) -> list[task_event_pb2.TaskEvent]:
        """All events of the task; `into` has each as soon as it came."""
        events = [] if into is None else into
        request = task_service_pb2.GenerateRequest(task=task)
        async with open_stream(self.tasks.Generate, request, idle_timeout_s=SILENT_S) as answers:
            async for answer in answers:
                events.append(answer.event)
        return events

    async def submit(self, task: task_pb2.TaskSpec) -> str:
        answer = await call(self.tasks.SubmitTask, task_service_pb2.SubmitTaskRequest(task=task), timeout_s=CALL_S)
        return answer.task_id

    async def stream(self, task_id: str, after: str = "") -> list[task_event_pb2.TaskEvent]:
        request = task_service_pb2.StreamTaskRequest(task_id=task_id, after=after)
        async with open_stream(self.tasks.StreamTask, request, idle_timeout_s=SILENT_S) as answers:
            return [answer.event async for answer in answers]

    async def read(self, task_id: str, into: list[task_event_pb2.TaskEvent]) -> None:
        """As `stream`; `into` has each event as soon as it came, also when the stream breaks."""
        request = task_service_pb2.StreamTaskRequest(task_id=task_id)
        async with open_stream(self.tasks.StreamTask, request, idle_timeout_s=SILENT_S) as answers:
            async for answer in answers:
                into.append(answer.event)  # noqa: PERF401  what came before an error is looked at, too

    async def stream_when_found(self, task_id: str, after: str = "") -> list[task_event_pb2.TaskEvent]:
        """As `stream`, once an orchestrator that was started again knows whether there is something to go on from."""
        async with asyncio.timeout(FOUND_WITHIN_S):
            while True:
                try:
                    return await self.stream(task_id, after)
                except Unavailable as error:
                    await asyncio.sleep((error.retry_after_ms or 100) / 1000)

    async def task(self, task_id: str) -> task_pb2.Task:
        answer = await call(self.tasks.GetTask, task_service_pb2.GetTaskRequest(task_id=task_id), timeout_s=CALL_S)
        return answer.task

    async def state(self) -> fleet_service_pb2.State:
        answer = await call(self.fleet.GetState, fleet_service_pb2.GetStateRequest(), timeout_s=CALL_S)
        return answer.state

    async def register(self, name: str, source: str, **options: int) -> model_pb2.Model:
        spec = model_pb2.ModelSpec(name=name, source=source, **options)  # type: ignore[arg-type]  # tests name fields
        request = catalog_service_pb2.RegisterModelRequest(model=spec)
        return (await call(self.catalog.RegisterModel, request, timeout_s=CALL_S)).model


@dataclass
class OrchestratorLives:
    """The orchestrator, and those that take its place, its address and its data."""

    daemons: asyncio.TaskGroup
    folder: Path
    queue_capacity: int
    auth: Mapping[str, object] = field(default_factory=dict)
    drain_s: float = 0
    config: Path | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self, bind: str) -> str:
        """The address under which it serves."""
        return await _start(self.daemons, self.folder / "orchestratord", lambda file: self._live(bind, file, self.stop))

    async def begin_next(self, bind: str) -> None:
        await self.end()
        await self.begin(bind)

    async def end(self) -> None:
        self.stop.set()
        self.stop = asyncio.Event()
        await self.ended.wait()

    async def _live(self, bind: str, address_file: Path, stop: asyncio.Event) -> None:
        self.ended.clear()
        settings = OrchestratorSettings.model_validate(
            {
                "bind": bind,
                "address_file": address_file,
                "data_dir": self.folder / "orchestrator",
                "drain_s": self.drain_s,
                "package_models": False,
                "queue_capacity": self.queue_capacity,
                "config": self.config,
                **self.auth,
            }
        )
        try:
            await orchestratord.app.run(settings, stop)
        finally:
            self.ended.set()


def task(prompt: str = "hello", model: str = "sim", max_tokens: int = 8, **options: object) -> task_pb2.TaskSpec:
    """A task for the simulated model; `seed` 7, so that its text is known."""
    work = task_pb2.GenerateWork(prompt=prompt, max_tokens=max_tokens)
    work.sampling.seed = 7
    return task_pb2.TaskSpec(model=model, generate=work, **options)  # type: ignore[arg-type]  # tests name fields


async def wait_until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Returns when the condition holds; fails the test if it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not await holds():  # what is waited for is in other processes too
            await asyncio.sleep(0.02)


@asynccontextmanager
async def whole_system(
    folder: Path,
    slots: int = 4,
    queue_capacity: int = 1000,
    *,
    token: str | None = None,
    auth_optional: bool = False,
    allowed_host: Sequence[str] = (),
    config: Path | None = None,
    reattach_s: float = 30.0,
    **pool_manager: object,
) -> AsyncIterator[WholeSystem]:
    """A system with the model `sim`, whose file only looks like one, on the node `garage`. `pool_manager`: settings of
    that one. All daemons have the token, and it is shown by the client that the test gets. `config` is the settings
    file of the orchestrator, `reattach_s` a setting of the gateway.
    """
    stop = asyncio.Event()
    auth = {"token": token, "auth_optional": auth_optional}
    async with asyncio.TaskGroup() as daemons:
        lives = OrchestratorLives(daemons, folder, queue_capacity, auth, config=config)
        try:
            orchestrator = await lives.begin("127.0.0.1:0")
            await _start(
                daemons,
                folder / "pool-managerd",
                lambda file: pool_managerd.app.serve(
                    _pool_manager(folder, orchestrator, file, auth | pool_manager), stop
                ),
            )
            gateway = await _start(
                daemons,
                folder / "gatewayd",
                lambda file: gatewayd.app.run(
                    GatewaySettings(
                        bind="127.0.0.1:0",
                        orchestrator=orchestrator,
                        address_file=file,
                        token=token,
                        auth_optional=auth_optional,
                        allowed_host=list(allowed_host),
                        reattach_s=reattach_s,
                    ),
                    stop,
                ),
            )
            shown = {"authorization": f"Bearer {token}"} if token else {}
            async with httpx.AsyncClient(
                base_url=f"http://{gateway}", headers=shown, timeout=SILENT_S, trust_env=False
            ) as http:
                channel = open_channel(orchestrator, token=token)
                system = WholeSystem(orchestrator, http, channel, folder, lives)
                try:
                    await wait_until(lambda: _has_node(system))
                    await system.register("sim", f"file:{gguf(folder)}", slots=slots)
                    yield system
                finally:
                    await channel.close()
        finally:
            stop.set()
            lives.stop.set()


@asynccontextmanager
async def another_node(system: WholeSystem, node_id: str, **settings: object) -> AsyncIterator[None]:
    """A further pool manager, from its registration on; `settings` are its own."""
    folder, stop = system.folder / node_id, asyncio.Event()
    folder.mkdir(exist_ok=True)  # it may have been there before
    settings = {"node_id": node_id, "data_dir": folder / "data", **settings}

    async def is_there() -> bool:
        nodes = (await system.state()).nodes
        return any((node.node_id, node.state) == (node_id, node_pb2.NODE_STATE_READY) for node in nodes)

    async with asyncio.TaskGroup() as daemons:
        try:
            await _start(
                daemons,
                folder / "pool-managerd",
                lambda file: pool_managerd.app.serve(_pool_manager(folder, system.address, file, settings), stop),
            )
            await wait_until(is_there)
            yield
        finally:
            stop.set()


@asynccontextmanager
async def orchestrator_alone(folder: Path) -> AsyncIterator[WholeSystem]:
    """For pool managers that the test brings. There is no gateway: `http` leads nowhere."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as daemons:
        try:
            address = await _start(
                daemons,
                folder / "orchestratord",
                lambda file: orchestratord.app.run(
                    OrchestratorSettings(
                        bind="127.0.0.1:0",
                        address_file=file,
                        data_dir=folder / "orchestrator",
                        drain_s=0,
                        package_models=False,
                    ),
                    stop,
                ),
            )
            async with httpx.AsyncClient() as http, open_channel(address) as channel:
                yield WholeSystem(address, http, channel, folder)
        finally:
            stop.set()


def gguf(folder: Path, name: str = "sim.gguf", context_trained: int = 8192) -> Path:
    """A model without weights; the simulated engine needs none."""
    path = folder / name
    path.write_bytes(smallest_model(context_trained))
    return path


def ranker(folder: Path, name: str = "ranker.gguf") -> Path:
    """One that orders documents, as far as its file says."""
    path = folder / name
    path.write_bytes(smallest_ranker())
    return path


def _pool_manager(
    folder: Path, orchestrator: str, address_file: Path, settings: Mapping[str, object]
) -> PoolManagerSettings:
    return PoolManagerSettings.model_validate(
        {
            "bind": "127.0.0.1:0",
            "orchestrator": orchestrator,
            "node_id": "garage",
            "data_dir": folder / "pool-manager",
            "simulate_gpu": ["RTX 3090:24GiB"],
            "sim": json.dumps(SIM),
            "address_file": address_file,
            "worker_stop_grace_s": 2,
            "worker_ports": "any",
            "stop_workers_on_exit": True,
            **settings,
        }
    )


async def _start(daemons: asyncio.TaskGroup, file: Path, run: Callable[[Path], Awaitable[None]]) -> str:
    """The address under which the daemon serves; what an earlier life has left there does not count."""
    file.unlink(missing_ok=True)  # noqa: ASYNC240  # a local file, in a test

    async def daemon() -> None:
        await run(file)

    daemons.create_task(daemon(), name=file.name)

    async def serves() -> bool:
        return file.exists()  # noqa: ASYNC240  # a local file, in a test

    await wait_until(serves, SERVING_WITHIN_S)
    return file.read_text().strip()  # noqa: ASYNC240  # the same


async def _has_node(system: WholeSystem) -> bool:
    return any(node.state == node_pb2.NODE_STATE_READY for node in (await system.state()).nodes)
