"""The orchestrator dies at every point of its work, while its workers live on: what it took on ends once, and right.

`make chaos` kills it 60 times, cuts the power of all machines 10 times, kills it 6 times while its node is away for
longer than is waited for, and has it stand still 3 times; the suite takes a tenth of that, the points spread.
"""

import asyncio
import random
import signal
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_orch.v2 import (
    cancel_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    model_pb2,
    node_pb2,
    task_pb2,
    task_service_pb2,
)
from llorch.logs import get_logger
from llorch.rpc.client import call
from orchestratord.core.state import BrainConfig
from support import beside_each_other, chaos_count
from support.cuttable_line import cuttable
from support.dying_orchestrator import POINTS, DyingOrchestrator, find
from support.machines import Machine, wait_for
from support.pool_manager_process import pool_manager_process
from support.returning_clients import CALL_S, Client, Crowd, Door
from support.whole_system import gguf

pytestmark = [pytest.mark.req("ORCH-1009", "TEST-7003"), pytest.mark.long]
_log = get_logger("chaos")

KILLS = chaos_count.of(60)
POWER_CUTS = chaos_count.of(10)
LATE_NODES = chaos_count.of(6)
STOPS = chaos_count.of(3)
STOPPED_S = 30.0 if chaos_count.IS_FULL else 8.0
SEED = 1
MODELS = ("first", "second")
SLOTS = 4
TOKENS_PER_S = 100
SIM = {"decode_tokens_per_s": TOKENS_PER_S, "load_s": 0.2}
LONG, SHORT = 280, 40
"""The former run longer than a start of the orchestrator takes."""
RUNNING = 2 * SLOTS - 2
"""So many have been shown output when the first life ends of those that die at a start."""
DIES_WITHIN_S = 20.0
ENDS_WITHIN_S = 60.0
GOES_ON_WITHIN_S = 3.0
RUNS_FOUND_WITHIN_S = BrainConfig().runs_found_within_s
LATE_S = RUNS_FOUND_WITHIN_S + 2.0
BACK_WITHIN_S = 1.5
"""After a power cut."""


@dataclass
class Tally:
    """Of all kills of a test."""

    went_on_s: list[float] = field(default_factory=list)
    given_up_s: list[float] = field(default_factory=list)
    resets: int = 0
    gone: int = 0

    def add(self, clients: Sequence[Client]) -> None:
        self.went_on_s += [went_on_s for client in clients for went_on_s in client.went_on_s]
        self.given_up_s += [given_up_s for client in clients for given_up_s in client.given_up_s]
        self.resets += sum(client.resets for client in clients)
        self.gone += sum(client.is_gone for client in clients)

    def log(self, event: str, **more: object) -> None:
        _log.info(
            event,
            went_on=_figures(self.went_on_s),
            given_up=_figures(self.given_up_s),
            begun_anew=self.resets,
            calls_that_are_gone=self.gone,
            **more,
        )


def _figures(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"streams": 0}
    in_order = sorted(seconds)
    p99 = in_order[int(0.99 * (len(in_order) - 1))]
    return {"streams": len(in_order), "median_s": round(statistics.median(in_order), 2), "p99_s": round(p99, 2)}


@dataclass
class System:
    orchestrator: DyingOrchestrator
    node: Machine
    door: Door
    chance: random.Random
    _made: int = 0

    def clients(self, long: int = LONG, **of_calls: bool) -> list[Client]:
        """Of each model more than there are slots: accepted tasks, two of which are cancelled, and open calls."""
        made = []
        for model in MODELS:
            made += [self.client(model, tokens, durable=False, **of_calls) for tokens in (long, SHORT)]
            made += [self.client(model, tokens, durable=True) for tokens in (long, SHORT)]
            made.append(self.client(model, long, durable=True, cancel_after=self.chance.randint(1, 30)))
            made.append(self.client(model, SHORT, durable=True, deterministic=True))
        return made

    def client(self, model: str, tokens: int, *, durable: bool, **options: object) -> Client:
        self._made += 1
        kind = "task" if durable else "call"
        return Client(f"{kind}-{self._made}", self._made, model, tokens, durable, **options)  # type: ignore[arg-type]  # tests name fields

    async def cut_power(self) -> None:
        self.orchestrator.send(signal.SIGKILL)
        await self.node.lose_power()
        await self.orchestrator.end()

    async def start_again(self) -> None:
        """The orchestrator. The clients come back as soon as it answers."""
        self.door.shut()
        await self.orchestrator.start()
        await self.door.open()

    async def check(self, clients: Sequence[Client], where: str) -> None:
        """Each accepted task is there once, ended as its reader was told, and reads the same again."""
        page = await call(
            self.door.tasks.ListTasks, task_service_pb2.ListTasksRequest(page_size=1000), timeout_s=CALL_S
        )
        times = Counter(found.request_id for found in page.tasks if found.request_id)
        listed = {found.task_id: found for found in page.tasks}
        for client in clients:
            if not client.durable:
                continue
            assert times[client.name] == 1, f"{where}: {client.name} is there {times[client.name]} times"
            state = listed[client.task_id].state
            match client.cancel_outcome:
                case None:
                    expected = {task_pb2.TASK_STATE_COMPLETED}
                case cancel_pb2.CANCEL_OUTCOME_CANCELLED:
                    expected = {task_pb2.TASK_STATE_CANCELLED}
                case _:
                    expected = {task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_CANCELLED}
            assert state in expected, f"{where}: {client.name} is {task_pb2.TaskState.Name(state)}"
            assert client.cancel_outcome != cancel_pb2.CANCEL_OUTCOME_UNKNOWN, where
            assert await client.submit(self.door) == client.task_id, where
            await client.read_again(self.door)

    def check_nothing_begun_anew(self, clients: Sequence[Client], where: str) -> None:
        """A task that is cancelled as the orchestrator dies has the output that was kept with the cancel."""
        resets = {client.name: client.resets for client in clients if client.resets and client.cancel_after is None}
        assert not resets, f"{where}: what ran on went on, but readers had to begin anew: {resets}"


@asynccontextmanager
async def system(folder: Path) -> AsyncIterator[System]:
    """Both models are loaded."""
    orchestrator = DyingOrchestrator(folder / "orchestrator")
    await orchestrator.start()
    try:
        await orchestrator.wait_serving()
        flags = {"simulate_gpu": ("RTX 3090:24GiB", "RTX 3060:12GiB")}
        async with (
            cuttable(orchestrator.address) as line,
            pool_manager_process(folder / "pool", line.address, sim=SIM, **flags) as manager,
            Door(orchestrator.address) as door,
        ):
            await manager.start()
            running = System(orchestrator, Machine(manager, line), door, random.Random(SEED))  # noqa: S311  a schedule, no secret
            await wait_for(lambda: _has_node(door), "the node")
            catalog = catalog_service_pb2_grpc.CatalogServiceStub(door.channel)
            for model in MODELS:
                spec = model_pb2.ModelSpec(name=model, source=f"file:{gguf(folder, f'{model}.gguf')}", slots=SLOTS)
                await call(
                    catalog.RegisterModel, catalog_service_pb2.RegisterModelRequest(model=spec), timeout_s=CALL_S
                )
            await run_to_end(running, [running.client(model, SHORT, durable=True) for model in MODELS], "warming up")
            yield running
    finally:
        await orchestrator.end()


async def _has_node(door: Door) -> bool:
    fleet = fleet_service_pb2_grpc.FleetServiceStub(door.channel)
    answer = await call(fleet.GetState, fleet_service_pb2.GetStateRequest(), timeout_s=CALL_S)
    return [node.state for node in answer.state.nodes] == [node_pb2.NODE_STATE_READY]


async def run_to_end(running: System, clients: Sequence[Client], where: str) -> None:
    async with Crowd(clients, running.door) as crowd:
        await crowd.wait_ended(ENDS_WITHIN_S, where)


def schedule(kills: int) -> list[str]:
    """All points in turn; where there are fewer kills, some of them, evenly from the first to the last."""
    names = list(POINTS)
    if kills >= len(names):
        return [names[kill % len(names)] for kill in range(kills)]
    return [names[(kill * len(names) + len(names) // 2) // kills] for kill in range(kills)]


@pytest.mark.timeout(120 + 15 * KILLS)
async def test_what_was_taken_on_ends_right_wherever_the_orchestrator_dies(tmp_path: Path) -> None:
    tally, accepted = Tally(), list[Client]()
    async with system(tmp_path) as running:
        workers = running.node.manager.worker_pids()
        assert len(workers) == len(MODELS)
        for kill, name in enumerate(schedule(KILLS), 1):
            point = POINTS[name]
            passage = running.chance.randint(1, point.passages)
            where = f"kill {kill} of seed {SEED}: {name}, passage {passage}"
            clients = running.clients()
            async with Crowd(clients, running.door) as crowd:
                await die(running, crowd, name, passage)
                await running.start_again()
                await crowd.wait_ended(ENDS_WITHIN_S, where)
            await running.check(clients, where)
            running.check_nothing_begun_anew(clients, where)
            tally.add(clients)
            slowest_s = max((went_on_s for client in clients for went_on_s in client.went_on_s), default=None)
            _log.info("orchestrator_kill", where=where, slowest_s=slowest_s and round(slowest_s, 2))
            assert running.node.manager.worker_pids() == workers, f"{where}: workers came or went"
            accepted += [client for client in clients if client.durable]
        for client in accepted:
            await client.read_again(running.door)
        tally.log("orchestrator_kills", kills=KILLS, accepted_tasks=len(accepted))
    assert tally.went_on_s, "no stream was cut in its midst"
    if chaos_count.IS_FULL:
        assert max(tally.went_on_s) <= GOES_ON_WITHIN_S


async def die(running: System, crowd: Crowd, name: str, passage: int) -> None:
    orchestrator = running.orchestrator
    if POINTS[name].at_start:
        await crowd.wait_shown(RUNNING, DIES_WITHIN_S)
        await orchestrator.kill()
        orchestrator.die_at(name, passage)
        await orchestrator.start()
    else:
        orchestrator.die_at(name, passage)
    await orchestrator.wait_dead(DIES_WITHIN_S)


@pytest.mark.timeout(120 + 30 * POWER_CUTS + 60 * LATE_NODES + 3 * STOPPED_S * STOPS)
async def test_what_was_taken_on_ends_right_whatever_else_is_out(tmp_path: Path) -> None:
    await beside_each_other.run_all(
        tmp_path,
        {
            "all machines lose their power": begins_anew,
            "the node does not come back in time": is_given_up,
            "the orchestrator stands still": goes_on,
        },
    )


async def begins_anew(folder: Path) -> None:
    """Nothing runs any more: what was shown of an accepted task begins anew, and calls are gone."""
    tally = Tally()
    async with system(folder) as running:
        for cut in range(1, POWER_CUTS + 1):
            after_s = {daemon: running.chance.uniform(0, BACK_WITHIN_S) for daemon in ("orchestrator", "node")}
            where = f"power cut {cut} of seed {SEED}, back after {after_s}"
            clients = running.clients(may_get_lost=True)
            async with Crowd(clients, running.door) as crowd:
                await crowd.wait_shown(running.chance.randint(2, RUNNING), DIES_WITHIN_S)
                await running.cut_power()
                async with asyncio.TaskGroup() as returns:
                    returns.create_task(later(after_s["orchestrator"], running.start_again))
                    returns.create_task(later(after_s["node"], running.node.manager.start))
                await crowd.wait_ended(ENDS_WITHIN_S, where)
            await running.check(clients, where)
            tally.add(clients)
        tally.log("power_cuts", cuts=POWER_CUTS)
    assert tally.given_up_s, "no stream was cut in its midst"


async def is_given_up(folder: Path) -> None:
    """What does not come back in time begins anew, and what comes later is not shown. The node has lost its power, or
    was out of reach, and what ran on it still runs when it is back.
    """
    tally = Tally()
    async with system(folder) as running:
        for kill in range(1, LATE_NODES + 1):
            lives_on = kill % 2 == 1
            where = f"kill {kill} of seed {SEED}, and the node {'froze' if lives_on else 'lost its power'}"
            clients = running.clients(may_get_lost=True)
            async with Crowd(clients, running.door) as crowd:
                await crowd.wait_shown(RUNNING, DIES_WITHIN_S)
                await running.orchestrator.kill()
                if lives_on:
                    running.node.freeze()
                else:
                    await running.node.lose_power()
                await running.start_again()
                await asyncio.sleep(LATE_S)  # no waiting: so late does it come
                if lives_on:
                    running.node.thaw()
                else:
                    await running.node.manager.start()
                await crowd.wait_ended(ENDS_WITHIN_S, where)
            await running.check(clients, where)
            tally.add(clients)
        tally.log("late_nodes", kills=LATE_NODES)
    assert min(tally.given_up_s) >= RUNS_FOUND_WITHIN_S - 2.0, "a reader was sent away that might have gone on"
    assert max(tally.given_up_s) <= RUNS_FOUND_WITHIN_S + GOES_ON_WITHIN_S


async def goes_on(folder: Path) -> None:
    """No worker is lost, and no task: some end meanwhile, some afterwards, and some have not begun."""
    tally = Tally()
    async with system(folder) as running:
        workers = running.node.manager.worker_pids()
        for stop in range(1, STOPS + 1):
            where = f"stop {stop} of seed {SEED}"
            clients = running.clients(round((STOPPED_S + 1) * TOKENS_PER_S))
            async with Crowd(clients, running.door) as crowd:
                await crowd.wait_shown(RUNNING, DIES_WITHIN_S)
                running.door.shut()
                running.orchestrator.send(signal.SIGSTOP)
                await asyncio.sleep(STOPPED_S)  # no waiting: so long does it stand still
                running.orchestrator.send(signal.SIGCONT)
                await running.door.open()
                await crowd.wait_ended(ENDS_WITHIN_S, where)
            await running.check(clients, where)
            running.check_nothing_begun_anew(clients, where)
            tally.add(clients)
            assert running.node.manager.worker_pids() == workers, f"{where}: workers came or went"
        tally.log("orchestrator_stood_still", stops=STOPS, for_s=STOPPED_S)


async def later(after_s: float, then: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(after_s)  # no waiting: the moment is what varies
    await then()


@pytest.mark.parametrize("name", POINTS)
def test_every_point_is_a_function_of_the_daemon(name: str) -> None:
    _, attribute, function = find(POINTS[name])
    assert callable(function)
    assert attribute in POINTS[name].function
