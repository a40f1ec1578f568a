"""The workers' stats reach clients that read the state, through heartbeats."""

import asyncio

import pytest

from llama_orch.v2 import task_event_pb2, worker_pb2
from support.whole_system import WholeSystem, task, wait_until


@pytest.mark.req("WORK-3009")
async def test_the_state_tells_what_a_worker_did(system: WholeSystem) -> None:
    await system.generate(task(max_tokens=30))
    seen = worker_pb2.WorkerStats()

    async def told() -> bool:
        seen.CopyFrom((await system.state()).workers[0].stats)
        return seen.tokens_generated >= 30

    await wait_until(told)
    assert seen.tokens_prefilled > 0
    assert seen.steps > 0
    assert seen.rss_mib > 10
    assert seen.slots_busy == 0


async def test_the_rate_is_true_soon_after_the_first_tokens_and_gone_with_the_last(system: WholeSystem) -> None:
    await system.generate(task(max_tokens=1))  # loads the model
    events: list[task_event_pb2.TaskEvent] = []
    running = asyncio.create_task(system.generate(task(max_tokens=1200), events))
    told = worker_pb2.WorkerStats()

    async def has_rate() -> bool:
        told.CopyFrom((await system.state()).workers[0].stats)
        return told.tokens_per_second > 0

    async def has_begun() -> bool:
        return any(event.HasField("tokens") for event in events)

    await wait_until(has_begun)
    began = asyncio.get_running_loop().time()
    await wait_until(has_rate)
    assert asyncio.get_running_loop().time() - began < 1.5  # workers are asked each second at least
    assert told.tokens_per_second == pytest.approx(400, rel=0.25)
    await running
    assert (await system.state()).workers[0].stats.tokens_per_second == 0
