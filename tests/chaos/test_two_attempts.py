"""The orchestrator dies while two attempts of each task live, and with it a host: what was shown stays, and goes on.

`make chaos` has 10 such accidents, half of them with either host, the suite one with each.
"""

import asyncio
import random
import time
from functools import partial
from pathlib import Path

import pytest

from llorch.logs import get_logger
from support import beside_each_other, chaos_count
from support.machines import machines_with_cables, wait_for
from support.network_namespaces import Cable, need
from support.surviving_streams import (
    CARD,
    HOSTS,
    MODEL,
    SIM,
    STREAMS,
    TOKENS_PER_S,
    is_true,
    longest_gap,
    several_aboard,
    two_hosts,
)

pytestmark = [pytest.mark.req("ORCH-1008"), pytest.mark.long, pytest.mark.timeout(chaos_count.within(1800))]
_log = get_logger("chaos")

TIMES = chaos_count.of(5)
"""With each host."""
TOKENS = 20 * TOKENS_PER_S
"""They take longer than all that happens to them."""
ENDS_WITHIN_S = 120.0
GOES_ON_WITHIN_S = 20.0
"""5 s until an attempt begins elsewhere, the orchestrator's start, and the 10 s for which it looks for runs."""


async def test_what_two_attempts_have_shown_outlives_the_orchestrator_and_a_host(tmp_path: Path) -> None:
    need()
    scenarios = {"the first host goes": partial(accidents, 0), "the second host goes": partial(accidents, 1)}
    await beside_each_other.run_all(tmp_path, scenarios)


async def accidents(goes: int, folder: Path) -> None:
    """All streams begin on the first host, whose link is cut until the orchestrator has died; it goes on computing."""
    chance, longest = random.Random(goes), 0.0  # noqa: S311  a schedule, no secret
    async with (
        machines_with_cables(folder, *HOSTS, sim=SIM, cards=[CARD]) as running,
        two_hosts(running, folder) as (client, channel),
    ):
        cable, gone = running.nodes[HOSTS[0]].line, running.nodes[HOSTS[goes]]
        assert isinstance(cable, Cable)
        for _ in range(TIMES):
            await client.generate(MODEL, "first", max_tokens=1, placement={"pin": [HOSTS[0]]}).answer()
            worker, herd, keeping = await several_aboard(client, channel, TOKENS, prefer=HOSTS[0])
            assert worker.node_id == HOSTS[0]
            reading, began_at = herd.aboard(worker.spec.worker_id), time.monotonic()
            assert len(reading) == STREAMS
            cable.hold()
            await wait_for(
                lambda: is_true(all(read.attempts[-1] == 2 for read in reading)),  # noqa: B023
                "second attempts",
            )
            await asyncio.sleep(chance.uniform(0.0, 1.0))  # no waiting: what the second attempts have shown varies
            await running.orchestrator.kill()
            await gone.lose_power()
            cable.release()
            await running.orchestrator.start()
            async with asyncio.timeout(ENDS_WITHIN_S):
                await keeping
            herd.check()
            longest = max(longest, *(longest_gap(read, began_at) for read in reading))
            await gone.manager.start()
            await running.wait_ready()
    _log.info("two_attempts", gone=("first", "second")[goes], times=TIMES, longest_gap_ms=round(longest * 1000))
    assert longest <= GOES_ON_WITHIN_S
