"""What was accepted is done: the orchestrator is killed, or the power is cut, and the machines come back one by one.

`make chaos-long` kills the orchestrator 30 times, 10 times more where cables are pulled as well, and cuts the power 10
times, `make chaos` and the suite a tenth of that. Machines are away for up to a minute, in the suite for 2 s.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from llama_orch.v2 import device_pb2, pool_pb2, worker_pb2
from llorch.errors import LlorchError
from llorch.sdk.async_client import AsyncClient
from support import accepted_tasks, chaos_count, network_namespaces
from support.absences import OF_MACHINES, Away, come_back, leave
from support.accepted_tasks import Readers
from support.machines import DESK, Machines, machines, machines_with_cables, places_in_use, wait_for
from support.placed_models import MACHINES, PIN, register, write_files
from support.whole_system import gguf

pytestmark = pytest.mark.req("ORCH-1009")
KILLS = chaos_count.of_long(30)
KILLS_WITH_CABLES = chaos_count.of_long(10)
POWER_CUTS = chaos_count.of_long(10)
SEED = 1
TASKS = 200
BACK_WITHIN_S = 60.0 if chaos_count.IS_FULL else 2.0
"""After the orchestrator's start the last machine is back."""
DONE_WITHIN_S = 60.0
"""After that. A guard against hanging: the work itself takes a few seconds."""
DONE_BEFORE = 60
"""About so many tasks have ended at most when the orchestrator is killed."""

KEPT, SENT_AWAY = "kept", "sent-away"
RELEASED_FOR_MS = 12 * 3_600_000
SHOWN_WITHIN_S = 0.1
"""The orchestrator stores when a release ends, and shows it by how long that is from now: 1 ms more or less after a
start.
"""
FORBIDDEN = {("cellar", "sim-1"), ("attic", "sim-1"), ("barn", "sim-0")}
"""Node and device of what `set_places` takes away."""


def schedule(names: tuple[str, ...], chance: random.Random) -> dict[str, float]:
    """When each of them comes back, in seconds: in any order, sometimes all soon, sometimes as late as is promised."""
    within_s = chance.choice((0.1, 0.5, 1.0)) * BACK_WITHIN_S
    return {name: chance.uniform(0, within_s) for name in names}


async def later(at_s: float, then: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(at_s)  # no waiting: the moment is what varies
    await then()


@asynccontextmanager
async def burst(running: Machines, key: str, chance: random.Random) -> AsyncIterator[Readers]:
    """Accepted tasks, some of which are done, and their readers."""
    accepted = await accepted_tasks.submit(running, key, TASKS, chance)
    async with Readers(running, accepted, reconnect_for_s=BACK_WITHIN_S + DONE_WITHIN_S) as readers:
        await readers.begin()
        async with running.client() as client:
            await accepted.wait_done(client, chance.randrange(DONE_BEFORE))
        yield readers


@pytest.mark.timeout(120 + (2 * BACK_WITHIN_S + DONE_WITHIN_S) * KILLS)
async def test_no_accepted_task_is_lost_with_the_orchestrator_whichever_machine_is_back_last(tmp_path: Path) -> None:
    write_files(tmp_path)
    async with machines(tmp_path, *MACHINES, sim=accepted_tasks.SIM) as running:
        await kill_the_orchestrator(running, KILLS, OF_MACHINES)


@pytest.mark.timeout(120 + (2 * BACK_WITHIN_S + DONE_WITHIN_S) * KILLS_WITH_CABLES)
async def test_no_accepted_task_is_lost_when_cables_are_pulled_as_well(tmp_path: Path) -> None:
    """On hosts of their own: what is under way to a worker and from it is gone with the cable, too."""
    network_namespaces.need()
    write_files(tmp_path)
    async with machines_with_cables(tmp_path, *MACHINES, sim=accepted_tasks.SIM) as running:
        await kill_the_orchestrator(running, KILLS_WITH_CABLES, (Away.CUT_OFF, Away.CUT_OFF, Away.CRASHED))


async def kill_the_orchestrator(running: Machines, times: int, ways_to_be_away: Sequence[Away]) -> None:
    """While tasks wait and run; the next one starts while all machines are away, and they come back one by one."""
    chance = random.Random(SEED)  # noqa: S311  # a schedule, no secret
    key = await register(running)
    for kill in range(1, times + 1):
        ways = {name: chance.choice(ways_to_be_away) for name in MACHINES}
        back_at = schedule(MACHINES, chance)
        async with burst(running, key, chance) as readers:
            await running.orchestrator.kill()
            for name, way in ways.items():
                await leave(running.nodes[name], way)
            await running.orchestrator.start()
            await running.orchestrator.wait_serving()
            readers.go_on()
            async with asyncio.TaskGroup() as returns:
                for name, at_s in back_at.items():
                    returns.create_task(later(at_s, partial(come_back, running.nodes[name], ways[name])))
            told = ", ".join(f"{name} after {at_s:.1f} s ({ways[name]})" for name, at_s in back_at.items())
            await readers.check_completed(DONE_WITHIN_S, f"kill {kill} of seed {SEED}: {told}")
        await running.wait_ready()


@pytest.mark.req("ORCH-1022", "ORCH-1036")
@pytest.mark.timeout(120 + (2 * BACK_WITHIN_S + DONE_WITHIN_S) * POWER_CUTS)
async def test_after_a_power_cut_what_was_accepted_is_done_and_what_was_set_holds(tmp_path: Path) -> None:
    chance = random.Random(SEED)  # noqa: S311  # a schedule, no secret
    write_files(tmp_path)
    async with machines(tmp_path, *MACHINES, sim=accepted_tasks.SIM) as running:
        key = await register(running)
        await set_places(running)
        for cut in range(1, POWER_CUTS + 1):
            back_at = schedule(("orchestrator", "gateway", *MACHINES), chance)
            told = ", ".join(f"{name} after {at_s:.1f} s" for name, at_s in back_at.items())
            where = f"power cut {cut} of seed {SEED}: {told}"
            async with running.client() as client:
                before, ends_before = await what_is_set(client), await release_ends(client)
            async with burst(running, key, chance) as readers, watched(running) as intruders:
                await running.cut_power()
                async with asyncio.TaskGroup() as returns:
                    for name in ("gateway", *MACHINES):
                        daemon = running.gateway if name == "gateway" else running.nodes[name].manager
                        returns.create_task(later(back_at[name], daemon.start))
                    await later(back_at["orchestrator"], running.orchestrator.start)
                    await running.orchestrator.wait_serving()
                    readers.go_on()
                await readers.check_completed(DONE_WITHIN_S, where)
                await running.gateway.wait_serving()
                await running.wait_ready()
                async with running.client() as client:
                    await wait_for(partial(is_loaded, client, KEPT, "barn"), f"{KEPT} to be loaded by its rule")
                    now, ends = await what_is_set(client), await release_ends(client)
                changed = {name: (was, now.get(name)) for name, was in before.items() if now.get(name) != was}
                assert not changed, f"{where}; what was set, before and now: {changed}"
                assert ends == pytest.approx(ends_before, abs=SHOWN_WITHIN_S), where
                assert list(ends) == ["attic/RTX 3060"], where
                assert not intruders, f"{where}; on devices that were taken away: {intruders}"


async def set_places(running: Machines) -> None:
    """A pool is drained, two cards are released, one of them until a time; a model is to stay loaded, and another one
    would be loaded in the drained pool.
    """
    async with running.client() as client:
        for model, pool in {KEPT: f"barn:{DESK}", SENT_AWAY: f"cellar:{DESK}"}.items():
            await client.register_model(model, f"file:{gguf(running.folder, f'{model}.gguf')}")
            await client.assign([pool], PIN, model=model, keep_loaded=True)
        await client.drain_pool(f"cellar:{DESK}")
        await client.release_gpu("attic/3060", RELEASED_FOR_MS)
        await client.release_gpu("barn/3090")
        await wait_for(partial(is_loaded, client, KEPT, "barn"), f"{KEPT} to be loaded")

        async def is_drained() -> bool:
            return (await client.pool_health(f"cellar:{DESK}")).pool.state == pool_pb2.POOL_STATE_DRAINED

        await wait_for(is_drained, "the pool to be drained")


async def what_is_set(client: AsyncClient) -> dict[str, str]:
    """As people see it."""
    nodes, state = await client.nodes(), await client.state()
    pools = {f"pool {pool.pool_id}": pool_pb2.PoolState.Name(pool.state) for node in nodes for pool in node.pools}
    cards = {
        f"card {ledger.node_id}/{ledger.device.name}": device_pb2.DeviceState.Name(ledger.device.state)
        for ledger in state.devices
    }
    rules = {f"rule {rule.assignment_id}": str(rule) for rule in await client.assignments()}
    return {**pools, **cards, **rules}


async def release_ends(client: AsyncClient) -> dict[str, float]:
    """Of each card that is released until a time, in seconds since 1970."""
    return {
        f"{ledger.node_id}/{ledger.device.name}": ledger.release_end_time.ToNanoseconds() / 1e9
        for ledger in (await client.state()).devices
        if ledger.HasField("release_end_time")
    }


async def is_loaded(client: AsyncClient, model: str, node_id: str) -> bool:
    return any(
        (worker.spec.model, worker.node_id, worker.state) == (model, node_id, worker_pb2.WORKER_STATE_READY)
        for worker in (await client.state()).workers
    )


@asynccontextmanager
async def watched(running: Machines) -> AsyncIterator[set[tuple[str, str, str]]]:
    """Node, device and model of everything that is seen, in the block, where nothing may be."""
    found: set[tuple[str, str, str]] = set()

    async def watch() -> None:
        while True:
            with suppress(LlorchError):  # there is no orchestrator for a while
                async with running.client() as client, aclosing(client.watch_state()) as states:
                    async for state in states:
                        found.update(place for place in places_in_use(state) if place[:2] in FORBIDDEN)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
