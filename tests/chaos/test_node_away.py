"""A model whose only machine is away, asked for in every way: each client learns why, and gets it when it is back.

`make chaos` tries all pairs of ways to be away and ways in, the suite a spread tenth of them.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from llama_orch.v2 import assignment_pb2, device_pb2, fleet_service_pb2, node_pb2, pool_pb2
from llorch.logs import get_logger
from llorch.sdk.async_client import AsyncClient
from support import absences, beside_each_other, chaos_count
from support.absences import Away
from support.machines import Machines, is_ready, machines, node_of, wait_for
from support.pairs import spread
from support.ways_in import Ask, WayIn
from support.whole_system import gguf

pytestmark = [pytest.mark.req("ORCH-1021"), pytest.mark.timeout(600)]
_log = get_logger("chaos")

AWAY, STAYS = "garage", "shed"
NEW_NAME = "workshop"
PINNED, FROM_FOLDER = "pinned", "from-folder"
"""Pinned to the card of the machine that goes away; and one that lies in that machine's models_dir alone."""
CARD = "RTX 3090:24GiB"
SIM = {"decode_tokens_per_s": 200}

LOST_AFTER_S = 8
TOLD_WITHIN_S = 15.0
"""No promise: a command line has to start on a busy machine. What is refused by the API is refused at once."""
SERVED_WITHIN_S = 3.0
"""The promise, from the moment at which the machine is ready again. Where its workers have ended with it, what the same
loads took before on this machine is added: their processes start anew."""
RELEASED_FOR_MS = 20_000 if chaos_count.IS_FULL else 8_000
"""Longer than all asks at once take to be told, and short enough to be waited for."""
LONG_TOKENS = 8_000
LEASE_S = 30.0

ENDS_WITHIN_S = 5.0
"""A command line that has its answer needs a moment to end."""

PAIRS = spread(list(Away), list(WayIn), chaos_count.of(len(Away) * len(WayIn)))
BY_ABSENCE = {away: tuple(way_in for of_away, way_in in PAIRS if of_away is away) for away in dict(PAIRS)}
ROUNDS = [[away] for away in BY_ABSENCE] if chaos_count.IS_FULL else [list(BY_ABSENCE)[at::2] for at in range(2)]
"""A round has machines of its own, to which its absences come one after the other."""
AT_ONCE = [[of_round] for of_round in ROUNDS] if chaos_count.IS_FULL else [ROUNDS]
"""The suite's rounds, of few questions each, are beside each other: they wait for leases and returns."""

WORKERS_GO_ON = {Away.CRASHED, Away.FROZEN, Away.CUT_OFF, Away.RENAMED}
COUNTS_AS_LOST = {Away.SHUT_DOWN, Away.UNPLUGGED, Away.FROZEN, Away.MOVED}
"""Of the others something is heard while they are away: of their workers, or of the machine itself."""


def cause(away: Away) -> re.Pattern[str]:
    """What has to be named by whatever is told while the machine is away."""
    match away:
        case Away.RELEASED | Away.RELEASED_FOR_A_TIME:
            return re.compile("(?=.*released)(?=.*(garage|3090))")
        case Away.DRAINED | Away.DRAINING:
            return re.compile("(?=.*drain)(?=.*garage)")
        case _:
            return re.compile(f"node '{AWAY}'")


def without_rules(text: str) -> str:
    """The places that a rule names are not the cause."""
    return re.sub(r"'?\b\S+ only on [^';,]*'?", "", text)


@asynccontextmanager
async def two_machines(folder: Path) -> AsyncIterator[tuple[Machines, float]]:
    """One of them is about to go away, and has served both models; and how long their loads took."""
    offered = folder / AWAY / "models"
    offered.mkdir(parents=True)
    gguf(offered, f"{FROM_FOLDER}.gguf")
    async with machines(folder, AWAY, STAYS, sim=SIM, cards=[CARD], node_lost_s=LOST_AFTER_S) as running:
        async with running.client() as client:
            await client.register_model(PINNED, f"file:{gguf(folder, f'{PINNED}.gguf')}")
            await client.assign([f"{AWAY}/3090"], assignment_pb2.ASSIGNMENT_MODE_PIN, model=PINNED)
            began = time.monotonic()
            await asyncio.gather(
                *(client.generate(model, "hello", max_tokens=4).answer() for model in (PINNED, FROM_FOLDER))
            )
        yield running, time.monotonic() - began


async def leave(running: Machines, client: AsyncClient, away: Away) -> None:
    """Returns when it is away, as far as the orchestrator knows."""
    match away:
        case Away.RELEASED:
            await client.release_gpu(f"{AWAY}/3090")
        case Away.RELEASED_FOR_A_TIME:
            await client.release_gpu(f"{AWAY}/3090", RELEASED_FOR_MS)
        case Away.DRAINED:
            await client.drain_pool(AWAY)
            await wait_for(partial(pool_is, client, pool_pb2.POOL_STATE_DRAINED), "the pool to be drained")
        case Away.DRAINING:
            await client.submit(PINNED, "a long story", max_tokens=LONG_TOKENS)
            await wait_for(partial(runs_something, client), "the long task to begin")
            await client.drain_pool(AWAY, policy=fleet_service_pb2.DRAIN_POLICY_WAIT)
            assert await pool_is(client, pool_pb2.POOL_STATE_DRAINING)
        case _:
            await absences.leave(running.nodes[AWAY], away)
            await wait_for(partial(is_away, client), "the machine's lease to be over", LEASE_S)


async def come_back(running: Machines, client: AsyncClient, away: Away) -> None:
    """Returns when it is there, as far as the orchestrator knows."""
    machine = running.nodes[AWAY]
    match away:
        case Away.RELEASED:
            await client.resume_gpu(f"{AWAY}/3090")
        case Away.RELEASED_FOR_A_TIME:
            await wait_for(partial(card_is_back, client), "the card to come back by itself", 2 * RELEASED_FOR_MS / 1000)
        case Away.DRAINED | Away.DRAINING:
            await client.reload_pool(AWAY, deadline_ms=0, policy=fleet_service_pb2.DRAIN_POLICY_FAIL)
            await wait_for(partial(pool_is, client, pool_pb2.POOL_STATE_READY), "the pool to be used again")
        case _:
            await absences.come_back(machine, away)
            await wait_for(partial(is_ready, client, AWAY), "the machine to be back", every_s=0.01)


async def come_back_renamed(running: Machines, client: AsyncClient) -> None:
    manager = running.nodes[AWAY].manager
    manager.flags["node_id"] = NEW_NAME
    await manager.start()
    await wait_for(partial(is_ready, client, NEW_NAME), "the machine to be there under its new name", every_s=0.01)


async def take_old_name(running: Machines, client: AsyncClient) -> None:
    manager = running.nodes[AWAY].manager
    await manager.kill()
    manager.flags["node_id"] = AWAY
    await manager.start()
    await wait_for(partial(is_ready, client, AWAY), "the machine to be back under its old name", every_s=0.01)


async def is_away(client: AsyncClient) -> bool:
    return not await is_ready(client, AWAY)


async def is_lost(client: AsyncClient) -> bool:
    node = await node_of(client, AWAY)
    return node is None or node.state == node_pb2.NODE_STATE_LOST


async def pool_is(client: AsyncClient, state: "pool_pb2.PoolState.ValueType") -> bool:
    return (await client.pool_health(AWAY)).pool.state == state


async def runs_something(client: AsyncClient) -> bool:
    return (await client.state()).tasks_running > 0


async def card_is_back(client: AsyncClient) -> bool:
    ledgers = (await client.state()).devices
    return any((it.node_id, it.device.state) == (AWAY, device_pb2.DEVICE_STATE_OK) for it in ledgers)


@dataclass
class Inquiry:
    """All that is asked about one absence, and what was not as it should be."""

    running: Machines
    away: Away
    ways_in: tuple[WayIn, ...]
    asks: list[Ask] = field(default_factory=list)
    """Those that were asked while it was away."""
    anew: list[Ask] = field(default_factory=list)
    problems: dict[str, None] = field(default_factory=dict)
    served_after_s: dict[str, float] = field(default_factory=dict)

    def _note(self, problem: str) -> None:
        self.problems[problem] = None

    async def ask_while_away(self, when: str, models: Iterable[str]) -> None:
        """In every way. Each is refused or told what it waits for, with the cause; and that is how it is explained."""
        asks = [Ask(way, model, self.running, when) for way in self.ways_in for model in models]
        self.asks += asks
        await asyncio.gather(*(self._check_told(ask) for ask in asks))
        async with self.running.client() as client:
            for model in models:
                summary = (await client.explain(model)).summary
                if not self._names_cause(summary):
                    self._note(f"{model}, {when}: explained without the cause: {summary}")

    async def check_served(self, models: Iterable[str], bar_s: float) -> None:
        """The machine is back since this moment: whatever waits is served, then clients that ask anew."""
        began = time.monotonic()
        await asyncio.gather(*(self._first_answer(model, began, bar_s) for model in models))
        for ask in self.asks:
            if ask.model in models and not await ask.wait(max(0.0, began + bar_s - time.monotonic()) + ENDS_WITHIN_S):
                self._note(f"{ask}: waits although the machine is back; was told: {ask.told}")
            elif ask.model in models:
                self._check_refusal(ask)
        anew = [Ask(way, model, self.running, "asked anew") for way in self.ways_in for model in models]
        self.anew += anew
        for ask in anew:
            if not await ask.wait(TOLD_WITHIN_S):
                self._note(f"{ask}: not served in {TOLD_WITHIN_S} s; was told: {ask.told}")
            elif ask.refusal is not None:
                self._note(f"{ask}: {ask.refusal.told}")

    async def _first_answer(self, model: str, began: float, bar_s: float) -> None:
        """As a client that tries again does it."""
        refused = ""
        while (passed_s := time.monotonic() - began) < bar_s:
            ask = Ask(WayIn.GENERATE, model, self.running, "tried again")
            self.anew.append(ask)
            if await ask.wait(bar_s - passed_s) and ask.refusal is None:
                self.served_after_s[model] = round(time.monotonic() - began, 2)
                return
            if ask.is_over:
                self._check_refusal(ask)
            refused = f"; last it was {ask.refusal.told if ask.is_over and ask.refusal else f'told {ask.told!r}'}"
            await asyncio.sleep(0.05)
        self._note(f"{model}: not served within {bar_s:.1f} s of the return{refused}")

    async def _check_told(self, ask: Ask) -> None:
        deadline = time.monotonic() + TOLD_WITHIN_S
        while not ask.is_over and not self._names_cause(ask.told) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if ask.is_over and ask.refusal is None:
            self._note(f"{ask}: served, although nothing new may go there")
        elif ask.is_over:
            self._check_refusal(ask)
        elif not self._names_cause(ask.told):
            self._note(f"{ask}: waits, and is not told for what: {ask.told!r}")

    def _check_refusal(self, ask: Ask) -> None:
        if ask.refusal is None:
            return
        if not ask.refusal.is_retryable:
            self._note(f"{ask}: not retryable: {ask.refusal.told}")
        elif not self._names_cause(ask.refusal.message):
            self._note(f"{ask}: the cause is not named: {ask.refusal.told}")

    def _names_cause(self, text: str) -> bool:
        return cause(self.away).search(without_rules(text)) is not None


@asynccontextmanager
async def inquiry(running: Machines, away: Away) -> AsyncIterator[Inquiry]:
    """What is asked in the block and not over at its end is given up."""
    asked = Inquiry(running, away, BY_ABSENCE[away])
    try:
        yield asked
    finally:
        for ask in (*asked.asks, *asked.anew):
            await ask.give_up()


def name_of(of_round: Iterable[Away]) -> str:
    return "+".join(away.name for away in of_round)


@pytest.mark.parametrize("rounds", AT_ONCE, ids=[" ".join(map(name_of, rounds)) for rounds in AT_ONCE])
async def test_every_way_in_tells_what_is_away_and_serves_when_it_is_back(
    tmp_path: Path, rounds: list[list[Away]]
) -> None:
    """The loads with which later ones are compared are made in turn."""
    turn = asyncio.Lock()
    await beside_each_other.run_all(
        tmp_path, {name_of(ways): partial(go_and_come_back_in_turn, ways, turn) for ways in rounds}
    )


async def go_and_come_back_in_turn(ways_to_be_away: list[Away], turn: asyncio.Lock, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        async with turn:
            running, load_s = await stack.enter_async_context(two_machines(folder))
        for away in ways_to_be_away:
            async with inquiry(running, away) as asked:
                await go_and_come_back(asked, SERVED_WITHIN_S if away in WORKERS_GO_ON else SERVED_WITHIN_S + load_s)
            _log.info("node_away", way=away.name, load_s=round(load_s, 2), **asked.served_after_s)
            assert not asked.problems, "\n".join((f"{away}:", *asked.problems))


async def go_and_come_back(asked: Inquiry, bar_s: float) -> None:
    running, away, models = asked.running, asked.away, (PINNED, FROM_FOLDER)
    async with running.client() as client:
        await leave(running, client, away)
        await asked.ask_while_away("asked when it had gone", models)
        if away in COUNTS_AS_LOST and chaos_count.IS_FULL:
            await wait_for(partial(is_lost, client), "the machine to count as lost", LEASE_S)
            await asked.ask_while_away("asked when it counted as lost", models)
        if away is Away.RENAMED:
            await come_back_renamed(running, client)
            await asked.check_served([FROM_FOLDER], bar_s)
            await asked.ask_while_away("asked when it had a new name", [PINNED])
            await take_old_name(running, client)
            await asked.check_served([PINNED], bar_s)
        else:
            await come_back(running, client, away)
            await asked.check_served(models, bar_s)
