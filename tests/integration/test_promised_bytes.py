"""A deterministic task has to leave its node in mid-stream: it goes on with the same bytes, or says that it can't."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import error_reason_pb2, fleet_service_pb2, task_event_pb2, task_pb2, worker_pb2
from llorch.rpc.client import call
from llorch.rpc.fingerprints import digest_of
from support.streams import check_stream
from support.whole_system import CALL_S, SIM, WholeSystem, another_node, task, wait_until, whole_system
from worker_orcd.engines.sim.tokens import sim_text

pytestmark = pytest.mark.req("ORCH-1038")

TOKENS = 600


def cards(name: str) -> dict[str, Any]:
    """Settings of a node with one card of this name, which its workers name in their fingerprints."""
    return {"simulate_gpu": [f"{name}:24GiB"], "sim": json.dumps({**SIM, "device": name})}


def spec() -> task_pb2.TaskSpec:
    return task(max_tokens=TOKENS, deterministic=True)


@asynccontextmanager
async def two_nodes(folder: Path, other: str) -> AsyncIterator[WholeSystem]:
    """The model is loaded on `garage`, an RTX 3090; `attic` has the other card, and nothing loaded."""
    async with (
        whole_system(folder, **cards("RTX 3090")) as system,
        another_node(system, "attic", **cards(other)),
    ):
        request = fleet_service_pb2.LoadModelRequest(model="sim", target="garage")
        await call(system.fleet.LoadModel, request, timeout_s=CALL_S)
        await wait_until(lambda: is_loaded(system))
        yield system


async def is_loaded(system: WholeSystem) -> bool:
    return [worker.state for worker in (await system.state()).workers] == [worker_pb2.WORKER_STATE_READY]


async def moved(system: WholeSystem) -> list[task_event_pb2.TaskEvent]:
    """All events of a task that has to leave `garage` once it has shown tokens."""
    events: list[task_event_pb2.TaskEvent] = []
    stream = asyncio.create_task(system.generate(spec(), events))

    async def has_tokens() -> bool:
        return any(event.HasField("tokens") for event in events)

    await wait_until(has_tokens)
    drain = fleet_service_pb2.DrainPoolRequest(pool_id="garage", deadline_ms=0)
    await call(system.fleet.DrainPool, drain, timeout_s=CALL_S)
    await stream
    return events


def nodes_of(events: list[task_event_pb2.TaskEvent]) -> list[str]:
    return [event.placed.node_id for event in events if event.HasField("placed")]


async def test_on_an_equal_card_the_stream_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    async with two_nodes(tmp_path, "RTX 3090") as system:
        events = await moved(system)
        assert nodes_of(events) == ["garage", "attic"]
        assert check_stream(events) == sim_text(7, 0, TOKENS)
        alone = await system.generate(spec())
        assert nodes_of(alone) == ["attic"]
        receipts = events[-1].end.receipt, alone[-1].end.receipt
        assert receipts[0] == receipts[1], "so does the same request once more"
        assert digest_of(receipts[0].fingerprint)


async def test_on_another_card_it_ends_with_the_reason_and_what_was_shown_stays(tmp_path: Path) -> None:
    async with two_nodes(tmp_path, "RTX 4090") as system:
        events = await moved(system)
        shown = check_stream(events)
        assert nodes_of(events) == ["garage"]
        assert shown
        assert sim_text(7, 0, TOKENS).startswith(shown)
        error = events[-1].error
        assert error.reason == error_reason_pb2.ERROR_REASON_DETERMINISM_UNAVAILABLE
        assert "began on simulated, RTX 3090" in error.message
        assert "RTX 4090 of attic" in error.message
        again = await system.generate(spec())
        assert nodes_of(again) == ["attic"]
        assert again[-1].end.receipt.fingerprint.device == "RTX 4090"


async def test_after_a_restart_of_the_orchestrator_a_task_goes_on_under_the_same_fingerprint(tmp_path: Path) -> None:
    """Though the other card would have been free for it, and its node may be the first to come back."""
    async with two_nodes(tmp_path, "RTX 4090") as system:
        task_id = await system.submit(spec())

        async def has_output() -> bool:
            return bool((await system.task(task_id)).log_entries)

        await wait_until(has_output)
        assert system.lives is not None
        await system.lives.begin_next(system.address)
        events = await system.stream(task_id)
        assert events[-1].end.receipt.fingerprint.device == "RTX 3090"
        assert check_stream(events) == sim_text(7, 0, TOKENS)
