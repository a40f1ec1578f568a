"""`llorch load`, `unload`, `gpu release`, `gpu resume`."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import fleet_service_pb2, worker_pb2
from support.fake_orchestrator import FakeOrchestrator, small_state

Llorch = Callable[..., Awaitable[Any]]


def loading(message: str) -> fleet_service_pb2.State:
    state = small_state()
    state.ClearField("workers")
    state.loads.add(worker_id="worker-1", model="smollm2", message=message)
    return state


def starting() -> fleet_service_pb2.State:
    state = small_state()
    state.workers[0].state = worker_pb2.WORKER_STATE_STARTING
    return state


async def test_load_tells_what_it_waits_for_and_where_the_model_is(llorch: Llorch, fake: FakeOrchestrator) -> None:
    waits, loads = loading("making room for smollm2"), loading("loading smollm2")
    fake.states_to_come = [waits, waits, loads, starting(), small_state()]

    result = await llorch("load", "smollm2", "--on", "garage/cpu")

    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "making room for smollm2",
        "loading smollm2",
        "smollm2 is loaded on garage/AMD Ryzen 9 7950X 16-Core Processor",
    ]
    assert fake.loads_seen == [fleet_service_pb2.LoadModelRequest(model="smollm2", target="garage/cpu")]


async def test_a_load_that_fails_says_why(llorch: Llorch, fake: FakeOrchestrator) -> None:
    failed = loading("")
    failed.ClearField("loads")
    failed.load_failures.add(model="smollm2", node_id="garage", message="the file is no model")
    fake.states_to_come = [starting(), failed]

    result = await llorch("load", "smollm2")
    assert result.code == 1
    assert result.err == "llorch: smollm2 could not be loaded on garage: the file is no model\n"


async def test_load_need_not_wait(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch("load", "smollm2", "--no-wait", "--json")
    assert (result.code, result.data()) == (0, {"worker_id": "worker-1"})
    assert "llorch ps" in (await llorch("load", "smollm2", "--no-wait")).err


async def test_unload_spares_busy_workers_unless_forced(llorch: Llorch, fake: FakeOrchestrator) -> None:
    assert (await llorch("unload", "smollm2")).err == "smollm2 leaves memory\n"
    assert (await llorch("unload", "smollm2", "--force", "--json")).data() == {"worker_ids": ["worker-1"]}
    assert (await llorch("unload", "coder")).err == "coder was not loaded\n"
    assert [request.even_if_busy for request in fake.unloads_seen] == [False, True, False]


async def test_a_gpu_is_released_for_a_time_and_resumed(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch("gpu", "release", "garage/3090", "--for", "1.5h")

    assert result.code == 0
    assert result.err == "garage/3090 is released for 1.5h; still leaving it: smollm2\n"
    (asked,) = fake.releases_seen
    assert (asked.device, asked.duration_ms) == ("garage/3090", 5_400_000)
    assert (await llorch("gpu", "resume", "garage/3090")).code == 0
    assert fake.resumed == ["garage/3090"]


async def test_a_gpu_is_released_until_it_is_resumed(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.state.ClearField("workers")

    result = await llorch("gpu", "release", "garage/3090")

    assert result.err == "garage/3090 is released until `llorch gpu resume garage/3090`; nothing was on it\n"
    assert not fake.releases_seen[0].HasField("duration_ms")


@pytest.mark.parametrize("time", ["3", "soon", "-1h"])
async def test_a_time_without_a_unit_is_refused(llorch: Llorch, fake: FakeOrchestrator, time: str) -> None:
    result = await llorch("gpu", "release", "garage/3090", f"--for={time}")

    assert result.code == 2
    assert '"90s"' in result.err
    assert not fake.releases_seen
