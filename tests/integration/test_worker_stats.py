"""The workers' stats reach clients that read the state, through heartbeats."""

import pytest

from llama_orch.v2 import worker_pb2
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
