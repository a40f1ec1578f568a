"""The same requests on two workers, one of them idle, the other one busy: every token is the same.

LLORCH_TEST_SEEDS says how many requests; `make chaos` takes 64.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from llama_orch.v2 import run_pb2
from support.real_model import smollm2
from support.worker_process import Stub, execute, worker_on_cpu

pytestmark = [pytest.mark.native, pytest.mark.long]

SEEDS = int(os.environ.get("LLORCH_TEST_SEEDS", "8"))
LOADERS = 3 if SEEDS <= 8 else 14
"""Two deterministic requests run at a time, so that each has this many neighbours and one more."""

SLOTS = LOADERS + 2
CONTEXT = 512
ANSWER = 12
WORDS = ["river", "bell", "winter", "seven", "lamp", "because", "under", "quickly", "stone", "never", "of", "a"]
COMMON = "Once upon a time there was a village by the sea where every house had a blue door and a bell. " * 2


def request(seed: int) -> run_pb2.RunSpec:
    """Half of them begin alike, so that what one leaves in a slot is what another one looks for."""
    choose = random.Random(seed)  # noqa: S311  made up, not secret
    tail = " ".join(choose.choices(WORDS, k=choose.randint(3, 60)))
    spec = run_pb2.RunSpec(deterministic=True)
    spec.generate.prompt = (COMMON if seed % 2 else "") + tail
    spec.generate.max_tokens = ANSWER
    spec.generate.ignore_eos = True
    spec.generate.sampling.seed = seed
    spec.generate.sampling.temperature = choose.choice((0.0, 0.8, 1.5))
    return spec


@asynccontextmanager
async def load(stub: Stub) -> AsyncIterator[None]:
    """Other requests without a pause; some are given up on their way."""
    async with asyncio.TaskGroup() as loaders:
        running = [loaders.create_task(_load(stub, random.Random(number))) for number in range(LOADERS)]  # noqa: S311
        yield
        for task in running:
            task.cancel()


async def _load(stub: Stub, choose: random.Random) -> None:
    while True:
        spec = request(choose.randrange(10_000, 20_000))
        spec.deterministic = False
        spec.generate.max_tokens = choose.randint(1, 40)
        with suppress(TimeoutError):
            async with asyncio.timeout(choose.choice((0.2, 60.0))):
                await execute(stub, spec)


def difference(seed: int, alone: list[int], beside: list[int]) -> str:
    """Empty if there is none."""
    if alone == beside:
        return ""
    pairs = zip(alone, beside, strict=False)
    at = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(alone), len(beside)))
    return f"seed {seed} differs from token {at} on: alone {alone}, beside others {beside}"


@pytest.mark.timeout(300 + 30 * SEEDS)
@pytest.mark.req("TEST-7001", "WORK-3003")
async def test_deterministic_runs_say_the_same_on_an_idle_worker_and_on_a_busy_one(tmp_path: Path) -> None:
    for name in ("idle", "busy"):
        (tmp_path / name).mkdir()
    options = {"slots": SLOTS, "context_per_slot": CONTEXT, "deterministic_runs": 2}
    async with (
        worker_on_cpu(tmp_path / "idle", smollm2(), **options) as idle,
        worker_on_cpu(tmp_path / "busy", smollm2(), **options) as busy,
    ):
        alone, beside = await asyncio.gather(_one_by_one(idle), _two_at_a_time(busy))
    differences = [difference(seed, alone[seed][0], beside[seed][0]) for seed in range(SEEDS)]
    assert not any(differences), "\n".join(filter(None, differences))
    for seed in range(SEEDS):
        assert alone[seed][1].HasField("receipt")
        assert alone[seed][1].receipt == beside[seed][1].receipt
    assert len({tuple(token_ids) for token_ids, _ in alone.values()}) > SEEDS // 2, "nearly all say something else"


Answers = dict[int, tuple[list[int], run_pb2.RunEnd]]


async def _one_by_one(stub: Stub) -> Answers:
    return {seed: await execute(stub, request(seed)) for seed in range(SEEDS)}


async def _two_at_a_time(stub: Stub) -> Answers:
    """In another order, so that other things lie in the slots."""
    answers: Answers = {}
    async with load(stub):
        for first in reversed(range(0, SEEDS, 2)):
            pair = range(first, min(first + 2, SEEDS))
            answers.update(
                zip(pair, await asyncio.gather(*(execute(stub, request(seed)) for seed in pair)), strict=True)
            )
    return answers


async def test_a_difference_is_told_by_its_tokens() -> None:
    assert difference(3, [1, 2, 3], [1, 2, 3]) == ""
    assert "seed 3 differs from token 1" in difference(3, [1, 2, 3], [1, 5, 3])
    assert "token 2" in difference(3, [1, 2, 3], [1, 2])
