"""A deterministic answer of a real model, whose worker is killed in the midst of it: every byte is the same.

`make chaos` kills 30, the suite a tenth of that.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from llama_orch.v2 import task_pb2
from llorch.logs import get_logger
from llorch.rpc.client import open_channel
from support import chaos_count
from support.unbroken_reading import Reading
from support.up import Up, running_up

pytestmark = [pytest.mark.native, pytest.mark.timeout(chaos_count.within(1800))]

KILLS = chaos_count.of(30)
TOKENS = 48
ANSWERS_WITHIN_S = 300.0
"""A guard against hanging: beside a busy process, llama.cpp's threads take up to 40 times as long."""

_log = get_logger("chaos")


@dataclass
class Gaps:
    """How long a stream stood still for its kill, by how many tokens it had shown by then."""

    found: list[tuple[int, float]] = field(default_factory=list)

    def told(self) -> str:
        return " ".join(f"{tokens}:{seconds:.1f}s" for tokens, seconds in sorted(self.found))


def spec(seed: int) -> task_pb2.TaskSpec:
    work = task_pb2.GenerateWork(prompt="The old lighthouse keeper", max_tokens=TOKENS, ignore_eos=True)
    work.sampling.seed, work.sampling.temperature = seed, 1.0
    return task_pb2.TaskSpec(model="smollm2", generate=work, deterministic=True)


def ids_of(read: Reading) -> list[int]:
    return [token_id for event in read.events for token_id in event.tokens.token_ids]


async def answer(channel: grpc.aio.Channel, seed: int) -> Reading:
    read = Reading(channel, spec(seed))
    async with asyncio.timeout(ANSWERS_WITHIN_S):
        await read.run()
    return read


@pytest.mark.req("TEST-7001", "ORCH-1008", "WORK-3003")
async def test_a_killed_worker_changes_no_byte_of_a_deterministic_answer(tmp_path: Path) -> None:
    chance, gaps = random.Random(3), Gaps()  # noqa: S311  a schedule, no secret
    async with running_up(tmp_path, "--cpu") as up, open_channel(await up.ready()) as channel:
        for seed in range(KILLS):
            undisturbed = await answer(channel, seed)
            read = await killed_in_the_midst(up, channel, seed, chance.randrange(1, TOKENS - 2), gaps)
            assert (read.text(), ids_of(read)) == (undisturbed.text(), ids_of(undisturbed)), f"seed {seed}"
            receipts = (read.events[-1].end.receipt, undisturbed.events[-1].end.receipt)
            assert receipts[0] == receipts[1]
            assert read.attempts == [1, 2]
    _log.info("deterministic_kills", kills=KILLS, gap_by_tokens_shown=gaps.told())


async def killed_in_the_midst(up: Up, channel: grpc.aio.Channel, seed: int, at_token: int, gaps: Gaps) -> Reading:
    read = Reading(channel, spec(seed))
    reading = asyncio.create_task(read.run())
    async with asyncio.timeout(ANSWERS_WITHIN_S):
        while read.tokens < at_token:
            await asyncio.sleep(0.005)
        up.family()["worker_orcd"].kill()
        killed_at, shown = time.monotonic(), read.tokens
        await reading
    gaps.found.append((shown, read.gap_after(killed_at) or 0.0))
    return read
