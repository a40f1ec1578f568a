"""Clients lose their connections at any byte, or their gateway by kill -9, and read on with their cursors.

`make chaos` cuts 300 connections, and 300 more by killing the gateway under 20 of them at a time; the suite a tenth of
that. What a client has put together is what a reader gets that was never cut. Ten times, too, the orchestrator is
killed under 20 clients, which notice nothing of it.
"""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_orch.v2 import task_pb2
from llorch.sdk.async_client import AsyncClient
from support import chaos_count
from support.cut_reader import CutReader
from support.gateway_process import GatewayProcess
from support.machines import CARDS, machines, wait_for
from support.streams import check_chunks, check_sse
from support.whole_system import WholeSystem, gguf, whole_system
from worker_orcd.engines.sim.tokens import sim_text

pytestmark = pytest.mark.req("GATE-4002")
STREAMS = 20
CUTS = chaos_count.of(300)
CUTS_IN_A_ROUND = chaos_count.up_to(300)
"""So many have room in the answers of all streams."""
KILLS = chaos_count.of(300 // STREAMS)
KILLS_OF_ORCHESTRATOR = chaos_count.of(10)
TOKENS = 400
TOKENS_OF_MANY_PARTS = 1000
LARGEST_PART = 2_500
"""Bytes of an answer that a client reads before it is cut: the head alone, or some dozens of events."""
WITHIN_S = 120.0
SEED = 3


def body_of(seed: int, tokens: int) -> bytes:
    """The seed tells which text it is."""
    work = {"prompt": "a story", "max_tokens": tokens, "sampling": {"seed": seed}}
    return json.dumps({"model": "sim", "generate": work}).encode()


def bodies(streams: int, tokens: int) -> list[bytes]:
    return [body_of(seed, tokens) for seed in range(streams)]


def data_of(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


async def unbroken(system: WholeSystem, task_id: str) -> list[dict[str, Any]]:
    answer = await system.http.get(f"/v2/tasks/{task_id}/events")
    return [json.loads(data) for data in data_of(answer.text)]


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


@pytest.mark.timeout(chaos_count.within(2 * WITHIN_S))
async def test_clients_that_are_cut_at_any_byte_miss_nothing(tmp_path: Path) -> None:
    """The first cut may come before its client knows the task, which is then another one."""
    chance = random.Random(SEED)  # noqa: S311  # a schedule, no secret
    async with whole_system(tmp_path, slots=STREAMS) as system:
        gateway = system.http.base_url.netloc.decode()
        for _ in range(CUTS // CUTS_IN_A_ROUND):
            readers = [
                CutReader(gateway, body, cuts(chance, CUTS_IN_A_ROUND // STREAMS + 1))
                for body in bodies(STREAMS, TOKENS_OF_MANY_PARTS)
            ]
            async with asyncio.timeout(WITHIN_S):
                await asyncio.gather(*(reader.read() for reader in readers))
            assert sum(reader.connections for reader in readers) >= CUTS_IN_A_ROUND, "tasks are too short"
            await check(system, readers, TOKENS_OF_MANY_PARTS)


@pytest.mark.timeout(chaos_count.within(2 * WITHIN_S))
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


@pytest.mark.timeout(chaos_count.within(2 * WITHIN_S))
async def test_no_client_notices_that_the_orchestrator_is_killed(tmp_path: Path) -> None:
    """Whichever door it came through: /v2, OpenAI's API with and without streams, the SDK."""
    chance = random.Random(SEED)  # noqa: S311  # a schedule, no secret
    async with (
        machines(tmp_path, "garage", sim={"decode_tokens_per_s": 200}, cards=CARDS[:1]) as running,
        running.client() as client,
        httpx.AsyncClient(base_url=running.gateway.url, timeout=WITHIN_S, trust_env=False) as http,
    ):
        await client.register_model("sim", f"file:{gguf(tmp_path)}", slots=STREAMS)
        await client.generate("sim", "loads it", max_tokens=1).answer()
        seeds = range(STREAMS // len(DOORS))
        for kill in range(KILLS_OF_ORCHESTRATOR):
            reading = [asyncio.create_task(read(http, client, seed)) for read in DOORS for seed in seeds]
            await wait_for(partial(_all_have_output, client, len(reading)), "output of all tasks")
            await asyncio.sleep(chance.uniform(0, 1.0))  # no waiting: the moment of the kill is what varies
            await running.orchestrator.kill()
            await running.orchestrator.start()
            async with asyncio.timeout(WITHIN_S):
                texts = await asyncio.gather(*reading)
            assert texts == [sim_text(seed, 0, TOKENS) for _ in DOORS for seed in seeds], f"kill {kill} of seed {SEED}"


async def _all_have_output(client: AsyncClient, many: int) -> bool:
    """Until then a task may be under way to its worker, and be lost with the orchestrator."""
    return sum(task.tokens_out > 0 for task in await client.tasks(task_pb2.TASK_STATE_RUNNING)) == many


async def _generated(http: httpx.AsyncClient, _client: AsyncClient, seed: int) -> str:
    answer = await http.post("/v2/generate", content=body_of(seed, TOKENS))
    return check_sse([json.loads(data) for data in data_of(answer.text)])


async def _streamed(http: httpx.AsyncClient, _client: AsyncClient, seed: int) -> str:
    return check_chunks(data_of((await http.post(_CHAT, json={**_chat(seed), "stream": True})).text))


async def _whole(http: httpx.AsyncClient, _client: AsyncClient, seed: int) -> str:
    answer = (await http.post(_CHAT, json=_chat(seed))).json()
    return str(answer["choices"][0]["message"]["content"])


async def _by_sdk(_http: httpx.AsyncClient, client: AsyncClient, seed: int) -> str:
    pieces = client.generate("sim", "a story", max_tokens=TOKENS, seed=seed).text()
    return "".join([piece async for piece in pieces])


_CHAT = "/v1/chat/completions"
DOORS = (_generated, _streamed, _whole, _by_sdk)


def _chat(seed: int) -> dict[str, Any]:
    return {
        "model": "sim",
        "messages": [{"role": "user", "content": "a story"}],
        "max_tokens": TOKENS,
        "seed": seed,
    }
