"""`llorch pool drain`, `reload`, `purge`."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import fleet_service_pb2 as pb2
from support.fake_orchestrator import FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]


@pytest.mark.req("ORCH-1022")
async def test_a_drain_says_what_it_waits_for_and_how_to_end_it(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.pool_blockers = [pb2.DrainBlocker(worker_id="worker-1", runs=2, message="smollm2 still runs 2 tasks")]

    result = await llorch("pool", "drain", "garage", "--deadline", "5m", "--policy", "wait")

    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "garage gets no new work until `llorch pool reload garage`",
        "  waits: smollm2 still runs 2 tasks",
    ]
    asked = pb2.DrainPoolRequest(pool_id="garage", deadline_ms=300_000, policy=pb2.DRAIN_POLICY_WAIT)
    assert fake.drains_seen == [asked]


async def test_a_pool_is_reloaded_or_purged_with_the_orchestrators_deadline(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    assert (await llorch("pool", "reload", "garage")).err == "garage starts its models again\n"
    told = "garage loses its files and gets no new work until `llorch pool reload garage`\n"
    assert (await llorch("pool", "purge", "garage", "--policy", "fail")).err == told

    assert fake.drains_seen == [
        pb2.ReloadPoolRequest(pool_id="garage", policy=pb2.DRAIN_POLICY_REQUEUE),
        pb2.PurgePoolRequest(pool_id="garage", policy=pb2.DRAIN_POLICY_FAIL),
    ]


@pytest.mark.parametrize("command", ["drain", "reload", "purge"])
async def test_json_is_the_health_of_the_pool(llorch: Llorch, command: str) -> None:
    result = await llorch("pool", command, "garage", "--json")

    assert (result.code, result.err) == (0, "")
    assert result.data()["pool"]["state"] == "POOL_STATE_DRAINING"
    assert result.data()["blockers"] == []


async def test_an_unknown_pool_is_refused_by_name(llorch: Llorch) -> None:
    result = await llorch("pool", "drain", "attic")

    assert (result.code, result.out) == (1, "")
    assert result.err == "llorch: no pool 'attic'; the pools are: garage\n"


@pytest.mark.parametrize("options", [("--deadline", "5"), ("--policy", "never")])
async def test_an_option_that_cannot_be_read_is_wrong_usage(
    llorch: Llorch, fake: FakeOrchestrator, options: tuple[str, str]
) -> None:
    result = await llorch("pool", "drain", "garage", *options)

    assert result.code == 2
    assert options[0] in result.err
    assert not fake.drains_seen
