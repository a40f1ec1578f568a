"""The fleet, looked after over its service: models come and go, devices are released, pools drained and reloaded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from llama_orch.v2 import device_pb2, error_reason_pb2, pool_pb2, task_event_pb2, worker_pb2
from llama_orch.v2 import fleet_service_pb2 as pb2
from llorch.cli import main as cli
from llorch.errors import InvalidArgument, NotFound, Reason, Unavailable
from llorch.rpc.client import call, open_stream
from support.streams import check_stream
from support.whole_system import CALL_S, SILENT_S, WholeSystem, gguf, task, wait_until
from worker_orcd.engines.sim.tokens import sim_text


async def load(system: WholeSystem, model: str = "sim", target: str = "") -> str:
    request = pb2.LoadModelRequest(model=model, target=target)
    return (await call(system.fleet.LoadModel, request, timeout_s=CALL_S)).worker_id


async def pool_health(system: WholeSystem, pool_id: str = "garage") -> pb2.GetPoolHealthResponse:
    return await call(system.fleet.GetPoolHealth, pb2.GetPoolHealthRequest(pool_id=pool_id), timeout_s=CALL_S)


async def is_ready(system: WholeSystem, worker_id: str) -> bool:
    workers = {worker.spec.worker_id: worker for worker in (await system.state()).workers}
    return worker_id in workers and workers[worker_id].state == worker_pb2.WORKER_STATE_READY


async def has_no_workers(system: WholeSystem) -> bool:
    return not (await system.state()).workers


async def has_tokens(events: list[task_event_pb2.TaskEvent]) -> bool:
    return any(event.HasField("tokens") for event in events)


@asynccontextmanager
async def watched(system: WholeSystem) -> AsyncIterator[AsyncIterator[pb2.WatchStateResponse]]:
    async with open_stream(system.fleet.WatchState, pb2.WatchStateRequest(), idle_timeout_s=SILENT_S) as states:
        yield states


@pytest.mark.req("ORCH-1036")
async def test_a_model_is_loaded_before_a_task_uses_it_and_unloaded(system: WholeSystem) -> None:
    worker_id = await load(system, target="garage/3090")
    await wait_until(lambda: is_ready(system, worker_id))
    assert await load(system) == worker_id
    events = await system.generate(task())
    assert next(event.placed.worker_id for event in events if event.HasField("placed")) == worker_id
    answer = await call(system.fleet.UnloadModel, pb2.UnloadModelRequest(model="sim"), timeout_s=CALL_S)
    assert list(answer.worker_ids) == [worker_id]
    await wait_until(lambda: has_no_workers(system))


@pytest.mark.req("ORCH-1036")
async def test_a_second_worker_is_started_where_the_operator_says(system: WholeSystem) -> None:
    first = await load(system)
    request = pb2.StartWorkerRequest(model="sim", node_id="garage", device_ids=["sim-0"])
    second = (await call(system.fleet.StartWorker, request, timeout_s=CALL_S)).worker_id
    assert second != first
    for worker_id in (first, second):
        await wait_until(partial(is_ready, system, worker_id))


async def test_what_is_not_there_is_refused_by_name(system: WholeSystem) -> None:
    with pytest.raises(NotFound) as no_device:
        await load(system, target="garage/4090")
    assert no_device.value.reason is Reason.DEVICE_NOT_FOUND
    with pytest.raises(NotFound) as no_model:
        await load(system, model="simm")
    assert no_model.value.reason is Reason.MODEL_NOT_FOUND
    with pytest.raises(NotFound) as no_pool:
        await pool_health(system, "attic")
    assert no_pool.value.reason is Reason.POOL_NOT_FOUND
    with pytest.raises(InvalidArgument):
        await call(system.fleet.ReleaseDevice, pb2.ReleaseDeviceRequest(), timeout_s=CALL_S)


@pytest.mark.req("ORCH-1036")
async def test_a_released_device_is_empty_and_refuses_work_until_it_is_resumed(system: WholeSystem) -> None:
    worker_id = await load(system)
    await wait_until(lambda: is_ready(system, worker_id))
    release = pb2.ReleaseDeviceRequest(device="garage/3090", duration_ms=3_600_000)
    answer = await call(system.fleet.ReleaseDevice, release, timeout_s=CALL_S)
    assert list(answer.worker_ids) == [worker_id]
    await wait_until(lambda: has_no_workers(system))
    shown = (await system.state()).devices[0]
    assert shown.device.state == device_pb2.DEVICE_STATE_RELEASED
    assert shown.HasField("release_end_time")
    with pytest.raises(Unavailable, match="released to its owner"):
        await system.generate(task())
    await call(system.fleet.ResumeDevice, pb2.ResumeDeviceRequest(device="garage/0"), timeout_s=CALL_S)
    assert check_stream(await system.generate(task())) == sim_text(7, 0, 8)


@pytest.mark.req("ORCH-1022", "POOL-2008")
async def test_a_pool_is_drained_while_its_work_finishes_and_reloaded(system: WholeSystem) -> None:
    long = asyncio.create_task(system.generate(task(max_tokens=400)))
    await wait_until(lambda: runs_something(system))
    before = (await system.state()).workers[0].spec.worker_id
    await call(system.fleet.DrainPool, pb2.DrainPoolRequest(pool_id="garage"), timeout_s=CALL_S)
    health = await pool_health(system)
    assert (health.pool.state, health.ready) == (pool_pb2.POOL_STATE_DRAINING, False)
    assert [blocker.runs for blocker in health.blockers] == [1]
    events = await long
    assert events[-1].end.choices[0].finish_reason == task_event_pb2.FINISH_REASON_LENGTH
    await wait_until(lambda: is_drained(system))
    await call(system.fleet.ReloadPool, pb2.ReloadPoolRequest(pool_id="garage"), timeout_s=CALL_S)
    await wait_until(lambda: has_ready_worker_other_than(system, before))
    health = await pool_health(system)
    assert (health.pool.state, health.ready, health.slots_total) == (pool_pb2.POOL_STATE_READY, True, 4)


@pytest.mark.req("ORCH-1022")
async def test_a_drain_that_can_not_wait_moves_a_running_stream_without_a_gap(system: WholeSystem) -> None:
    """To the same card, by a reload: what was said before and after is one text."""
    events: list[task_event_pb2.TaskEvent] = []
    stream = asyncio.create_task(system.generate(task(max_tokens=600), events))
    await wait_until(lambda: has_tokens(events))
    reload_ = pb2.ReloadPoolRequest(pool_id="garage", deadline_ms=0)
    await call(system.fleet.ReloadPool, reload_, timeout_s=CALL_S)
    await stream
    assert check_stream(events) == sim_text(7, 0, 600)
    assert len({event.placed.worker_id for event in events if event.HasField("placed")}) == 2


async def test_watchers_hear_of_changes_and_of_nothing_else(system: WholeSystem) -> None:
    async with watched(system) as states:
        first = (await anext(states)).state
        assert not first.workers
        worker_id = await load(system)
        seen: list[str] = []
        async for answer in states:
            state = answer.state
            seen += [f"load {load.worker_id}" for load in state.loads]
            ready = [worker for worker in state.workers if worker.state == worker_pb2.WORKER_STATE_READY]
            if ready:
                break
        assert f"load {worker_id}" in seen


async def test_a_load_that_fails_is_told_with_its_reason(system: WholeSystem) -> None:
    file = gguf(system.folder, "gone.gguf")
    await system.register("gone", f"file:{file}")
    file.unlink()
    await load(system, model="gone")

    async def has_failed() -> bool:
        return bool((await system.state()).load_failures)

    await wait_until(has_failed)
    state = await system.state()
    assert [(failure.model, failure.reason) for failure in state.load_failures] == [
        ("gone", error_reason_pb2.ERROR_REASON_MODEL_FILE_MISSING)
    ]
    assert not state.loads
    assert "gone" in (await pool_health(system)).last_error


@pytest.mark.req("ORCH-1022", "TOOL-5001")
async def test_the_command_line_empties_a_pool_and_puts_it_to_work_again(
    system: WholeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    async def llorch(*arguments: str) -> str:
        code = await asyncio.to_thread(cli.execute, [*arguments, "--address", system.address])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.err

    before = await load(system)
    await wait_until(lambda: is_ready(system, before))
    assert (await llorch("pool", "drain", "garage")).splitlines() == [
        "garage gets no new work until `llorch pool reload garage`",
        "  waits: the process that had sim is ending",
    ]
    await wait_until(lambda: is_drained(system))
    await llorch("pool", "purge", "garage")
    await llorch("pool", "reload", "garage")
    await wait_until(lambda: has_ready_worker_other_than(system, before))
    assert (await pool_health(system)).pool.state == pool_pb2.POOL_STATE_READY


async def runs_something(system: WholeSystem) -> bool:
    return (await system.state()).tasks_running > 0


async def is_drained(system: WholeSystem) -> bool:
    return (await pool_health(system)).pool.state == pool_pb2.POOL_STATE_DRAINED


async def has_ready_worker_other_than(system: WholeSystem, old: str) -> bool:
    workers = (await system.state()).workers
    return any(w.state == worker_pb2.WORKER_STATE_READY and w.spec.worker_id != old for w in workers)


@pytest.mark.req("ORCH-1022", "ORCH-1036")
async def test_the_same_over_http(system: WholeSystem) -> None:
    loaded = await system.http.post("/v2/catalog/models/sim/load", json={"target": "garage/3090"})
    worker_id = loaded.json()["worker_id"]
    await wait_until(lambda: is_ready(system, worker_id))
    assert (await system.http.post("/v2/pools/garage/drain", json={"policy": "DRAIN_POLICY_WAIT"})).status_code == 200
    await wait_until(lambda: is_drained(system))
    health = (await system.http.get("/v2/pools/garage/health")).json()
    assert (health["pool"]["state"], health["ready"]) == ("POOL_STATE_DRAINED", False)
    refused = await system.http.post("/v2/tasks", json={"model": "sim", "generate": {"prompt": "x"}})
    assert refused.status_code == 503
    assert "pool garage is drained" in refused.text
    released = await system.http.post("/v2/devices/release", json={"device": "garage/4090"})
    assert released.status_code == 404
