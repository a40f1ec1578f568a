"""Clients lose their connections at any byte, or their gateway by kill -9, and read on with their cursors.

`make chaos` cuts 300 connections, and 300 more by killing the gateway under 20 of them at a time; the suite a tenth of
that. What a client has put together is what a reader gets that was never cut.
"""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support import chaos_count
from support.cut_reader import CutReader
from support.gateway_process import GatewayProcess
from support.streams import check_sse
from support.whole_system import WholeSystem, whole_system
from worker_orcd.engines.sim.tokens import sim_text

pytestmark = pytest.mark.req("GATE-4002")
STREAMS = 20
CUTS = chaos_count.of(300)
KILLS = chaos_count.of(300 // STREAMS)
TOKENS = 400
TOKENS_OF_MANY_PARTS = 1000
LARGEST_PART = 2_500
"""Bytes of an answer that a client reads before it is cut: the head alone, or some dozens of events."""
WITHIN_S = 120.0
SEED = 3


def bodies(streams: int, tokens: int) -> list[bytes]:
    """Each asks for a text of its own, which its seed tells."""
    work = {"prompt": "a story", "max_tokens": tokens}
    return [
        json.dumps({"model": "sim", "generate": {**work, "sampling": {"seed": seed}}}).encode()
        for seed in range(streams)
    ]


async def unbroken(system: WholeSystem, task_id: str) -> list[dict[str, Any]]:
    answer = await system.http.get(f"/v2/tasks/{task_id}/events")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


async def check(system: WholeSystem, readers: Sequence[CutReader], tokens: int) -> None:
    for seed, reader in enumerate(readers):
        text = check_sse(reader.shown)
        assert text.encode() == sim_text(seed, 0, tokens).encode(), f"stream {seed} of seed {SEED}"
        assert text == check_sse(await unbroken(system, reader.task_id))


def cuts(chance: random.Random, times: int) -> Callable[[], int | None]:
    left = times

    def next_cut() -> int | None:
        nonlocal left
        left -= 1
        return chance.randrange(1, LARGEST_PART) if left >= 0 else None

    return next_cut


@pytest.mark.timeout(2 * WITHIN_S)
async def test_clients_that_are_cut_at_any_byte_miss_nothing(tmp_path: Path) -> None:
    """The first cut may come before its client knows the task, which is then another one."""
    chance = random.Random(SEED)  # noqa: S311  # a schedule, no secret
    async with whole_system(tmp_path, slots=STREAMS) as system:
        gateway = system.http.base_url.netloc.decode()
        readers = [
            CutReader(gateway, body, cuts(chance, CUTS // STREAMS + 1))
            for body in bodies(STREAMS, TOKENS_OF_MANY_PARTS)
        ]
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(reader.read() for reader in readers))
        assert sum(reader.connections for reader in readers) >= CUTS, "tasks are too short for so many cuts"
        await check(system, readers, TOKENS_OF_MANY_PARTS)


@pytest.mark.timeout(2 * WITHIN_S)
async def test_clients_of_a_gateway_that_is_killed_read_on_with_the_next_one(tmp_path: Path) -> None:
    """Tasks of Generate, which wait two seconds for their readers: so soon the gateway is back under its address."""
    chance = random.Random(SEED)  # noqa: S311  # a schedule, no secret
    async with whole_system(tmp_path, slots=STREAMS) as system:
        gateway = GatewayProcess(tmp_path / "gateway", system.address)
        try:
            await gateway.start()
            await gateway.wait_serving()
            for _ in range(KILLS):
                readers = [CutReader(gateway.address, body, lambda: None) for body in bodies(STREAMS, TOKENS)]
                async with asyncio.timeout(WITHIN_S):
                    await kill_under(readers, gateway, chance)
                assert all(reader.connections >= 2 for reader in readers)
                await check(system, readers, TOKENS)
        finally:
            await gateway.end()


async def kill_under(readers: Sequence[CutReader], gateway: GatewayProcess, chance: random.Random) -> None:
    """While all of them read."""
    reading = [asyncio.create_task(reader.read()) for reader in readers]
    read_before = chance.randrange(1, TOKENS // 4)
    while not all(len(reader.shown) > read_before for reader in readers):
        await asyncio.sleep(0.005)
    assert not any(reader.is_done for reader in readers)
    await gateway.kill()
    await gateway.start()
    await asyncio.gather(*reading)
