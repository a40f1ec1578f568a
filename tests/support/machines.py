"""A network of machines, as processes: an orchestrator, a gateway, and pool managers that a test sends away."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llama_orch.v2 import fleet_service_pb2, node_pb2, worker_pb2
from llorch.errors import LlorchError
from llorch.sdk.async_client import AsyncClient
from support.cuttable_line import Line, cuttable
from support.daemon_process import ENDS_WITHIN_S
from support.gateway_process import GatewayProcess
from support.network_namespaces import Cable, hosts
from support.orchestrator_process import OrchestratorProcess
from support.pool_manager_process import PoolManagerProcess, pool_manager_process

COMES_WITHIN_S = 60.0
"""Guards against hanging: many processes start at once."""

_BRAIN = "brain"
CARDS = ("RTX 3090:24GiB", "RTX 3060:12GiB")
DESK = "desk"
"""The pool of the second card; the first one stays in the pool that is named like its machine."""


@dataclass
class Machine:
    """A GPU host: its pool manager, the line from it to the orchestrator, its workers."""

    manager: PoolManagerProcess
    line: Line | Cable

    @property
    def models_dir(self) -> Path:
        return self.manager.folder / "models"

    async def shut_down(self) -> None:
        """In order, as an operating system does: the pool manager, then its workers."""
        assert await self.manager.terminate() == 0, self.manager.log()[-3000:]
        _send_all(self.manager.worker_pids(), signal.SIGTERM)
        await self.manager.wait_no_worker(ENDS_WITHIN_S)

    async def lose_power(self) -> None:
        await self.manager.end()
        _send_all(self.manager.worker_pids(), signal.SIGKILL)

    def freeze(self) -> None:
        """The machine falls silent with all that runs on it: its connections stay, and nothing comes over them."""
        self.manager.send(signal.SIGSTOP)
        _send_all(self.manager.worker_pids(), signal.SIGSTOP)

    def thaw(self) -> None:
        _send_all(self.manager.worker_pids(), signal.SIGCONT)
        self.manager.send(signal.SIGCONT)


@dataclass
class Machines:
    folder: Path
    orchestrator: OrchestratorProcess
    gateway: GatewayProcess
    nodes: dict[str, Machine] = field(default_factory=dict)

    def client(self, token: str | None = None, *, reconnect_for_s: float = 30.0) -> AsyncClient:
        """To be closed. Without a token of its own it has the owner's."""
        return AsyncClient(self.orchestrator.address, token or self.orchestrator.token, reconnect_for_s=reconnect_for_s)

    async def wait_ready(self) -> None:
        async with self.client() as client:
            for name in self.nodes:
                await wait_for(partial(is_ready, client, name), f"{name} to be ready")

    async def cut_power(self) -> None:
        """All daemons and all workers are gone at once; what is on the disks stays."""
        daemons = (self.orchestrator, self.gateway, *(machine.manager for machine in self.nodes.values()))
        for machine in self.nodes.values():
            machine.manager.send(signal.SIGKILL)
        for daemon in daemons:
            daemon.send(signal.SIGKILL)
        for machine in self.nodes.values():
            _send_all(machine.manager.worker_pids(), signal.SIGKILL)
        for daemon in daemons:
            await daemon.end()


@asynccontextmanager
async def machines(
    folder: Path,
    *names: str,
    sim: Mapping[str, object] | None = None,
    cards: Sequence[str] = CARDS,
    **orchestrator: object,
) -> AsyncIterator[Machines]:
    """All of them run. `orchestrator`: settings of that one. At the end all processes are killed, workers too.

    A machine has these `cards` and offers what lies in its `models_dir`. Python packages that lie in `folder` are
    installed on all of them.
    """
    async with AsyncExitStack() as stack:
        brain = OrchestratorProcess(folder / "orchestrator", flags=orchestrator)
        running = Machines(folder, brain, GatewayProcess(folder / "gateway", brain.address))
        for name in names:
            line = await stack.enter_async_context(cuttable(brain.address))
            manager = await stack.enter_async_context(
                pool_manager_process(folder / name, line.address, sim=sim, **_flags(folder / name, cards))
            )
            manager.environment = {"PYTHONPATH": str(folder)}
            running.nodes[name] = Machine(manager, line)
        await _start(running, stack)
        yield running


@asynccontextmanager
async def machines_with_cables(
    folder: Path, *names: str, sim: Mapping[str, object] | None = None, cards: Sequence[str] = CARDS
) -> AsyncIterator[Machines]:
    """As `machines`, each in a network namespace of its own: a line that is down is a cable that was pulled, also for
    what the orchestrator sends. There is no gateway to be reached.
    """
    token = secrets.token_hex(16)
    with hosts(_BRAIN, *names) as (found, cables):
        async with AsyncExitStack() as stack:
            brain = OrchestratorProcess(
                folder / "orchestrator", token, flags={"bind": "0.0.0.0:8090"}, prefix=found[_BRAIN].prefix
            )
            brain.address = f"{found[_BRAIN].address}:8090"
            door = GatewayProcess(folder / "gateway", "127.0.0.1:8090", prefix=found[_BRAIN].prefix)
            running = Machines(folder, brain, door)
            for name in names:
                flags = {**_flags(folder / name, cards), "bind": "0.0.0.0:9200"}
                manager = await stack.enter_async_context(
                    pool_manager_process(folder / name, f"{found[name].first}:8090", sim=sim, **flags)
                )
                manager.environment = {"PYTHONPATH": str(folder), "LLORCH_POOL_MANAGER_TOKEN": token}
                manager.prefix = found[name].prefix
                running.nodes[name] = Machine(manager, cables[name])
            await _start(running, stack)
            yield running


async def _start(running: Machines, stack: AsyncExitStack) -> None:
    for daemon in (running.orchestrator, running.gateway):
        stack.push_async_callback(daemon.end)
        await daemon.start()
    await running.orchestrator.wait_serving()
    for machine in running.nodes.values():
        await machine.manager.start()
    await running.wait_ready()


def _flags(folder: Path, cards: Sequence[str]) -> dict[str, object]:
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    return {
        "node_id": folder.name,
        "simulate_gpu": tuple(cards),
        "pools": f'{{"{DESK}": ["3060"]}}' if len(cards) > 1 else None,
        "models_dir": models,
        "worker_stop_grace_s": 2,
    }


async def wait_for(
    holds: Callable[[], Awaitable[bool]], what: str, within_s: float = COMES_WITHIN_S, every_s: float = 0.05
) -> None:
    """Fails the test with what was waited for. An orchestrator that does not answer now may do so later."""
    refused = ""
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    if await holds():
                        return
                    refused = ""
                except LlorchError as error:
                    refused = f"; last it said {error.message!r}"
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"waited {within_s:.0f} s for {what}{refused}") from None


async def node_of(client: AsyncClient, node_id: str) -> node_pb2.Node | None:
    return next((node for node in (await client.state()).nodes if node.node_id == node_id), None)


async def is_ready(client: AsyncClient, node_id: str) -> bool:
    node = await node_of(client, node_id)
    return node is not None and node.state == node_pb2.NODE_STATE_READY


def places_in_use(state: fleet_service_pb2.State) -> set[tuple[str, str, str]]:
    """Node, device and model of everything that is loaded, or begins to be."""
    used = {
        (worker.node_id, device_id, worker.spec.model)
        for worker in state.workers
        if worker.state not in (worker_pb2.WORKER_STATE_EXITED, worker_pb2.WORKER_STATE_FAILED)
        for device_id in worker.spec.device_ids
    }
    return used | {(load.node_id, device_id, load.model) for load in state.loads for device_id in load.device_ids}


def _send_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
