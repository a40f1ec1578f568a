"""What a restarted pool manager does with the workers that it finds."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from llorch.background import TaskSupervisor
from llorch.errors import AlreadyExists, NotFound, Reason, Unavailable
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from pool_managerd.workers import worker
from pool_managerd.workers.identity import ProcessIdentity, identify, is_alive
from pool_managerd.workers.status import AdoptAnswer, WorkerExit, WorkerStatus
from support.worker_host import Host, PlayedCalls, worker_spec

pytestmark = pytest.mark.req("POOL-2005")

ENGINE = AdoptAnswer("w-1", b"engine", (420,))


def exit_of(status: WorkerStatus) -> WorkerExit:
    assert status.exit is not None
    return status.exit


async def left_by_a_life_before(
    folder: Path, spec: WorkerSpec, part: str = "patient", *, ready: bool = True
) -> ProcessIdentity:
    """A worker whose pool manager has ended without ending it."""
    async with TaskSupervisor("a life before") as tasks:
        before = Host(folder, tasks)
        supervisor = await before.open(part)
        await supervisor.start(spec)
        await before.wait_log(spec.worker_id, "loading")
        await before.wait_record(spec.worker_id, "started")
        if ready:
            await supervisor.report_ready(spec.worker_id, "127.0.0.1:4321", b"engine", (420,))
        identity = identify(supervisor.statuses()[0].pid)
    assert identity is not None
    return identity


def reap(left: ProcessIdentity) -> int:
    """It is our child all the same, also when a pool manager has adopted it."""
    return os.waitstatus_to_exitcode(os.waitpid(left.pid, 0)[1])


def record_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "workers" / "w-1.json").read_text()))


def change_record(folder: Path, **fields: object) -> None:
    (folder / "workers" / "w-1.json").write_text(json.dumps({**record_of(folder), **fields}))


@asynccontextmanager
async def ended_at_the_end(left: ProcessIdentity) -> AsyncIterator[None]:
    try:
        yield
    finally:
        os.kill(left.pid, signal.SIGKILL)
        reap(left)


async def test_a_ready_worker_is_ready_again_and_nothing_happened_to_it(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    host.calls.adopt_answer = ENGINE
    supervisor = await host.open()
    (status,) = supervisor.statuses()
    assert (status.state, status.pid, status.address) == (WorkerState.READY, left.pid, "10.0.0.7:4321")
    assert (status.engine, status.held_mib()) == (b"engine", (420,))
    assert status.spec == worker_spec(model)
    assert host.calls.asked_to_adopt == [("127.0.0.1:4321", "127.0.0.1:1")]
    assert is_alive(left)
    reap_later = supervisor.stop("w-1")
    await reap_later
    assert exit_of(await host.wait_state("w-1", WorkerState.EXITED)).signal == signal.SIGTERM
    assert reap(left) == -signal.SIGTERM


async def test_the_start_that_the_life_before_took_is_this_worker_still(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    host.calls.adopt_answer = ENGINE
    supervisor = await host.open()
    async with ended_at_the_end(left):
        assert (await supervisor.start(worker_spec(model))).pid == left.pid
        with pytest.raises(AlreadyExists):
            await supervisor.start(replace(worker_spec(model), slots=3))


async def test_the_secrets_of_an_adopted_worker_still_stand_for_it(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    token = str(record_of(host.folder)["ready_token"])
    host.calls.adopt_answer = ENGINE
    supervisor = await host.open()
    async with ended_at_the_end(left):
        assert supervisor.worker_by_ready_token(token) == "w-1"
        assert supervisor.statuses()[0].access_token == record_of(host.folder)["access_token"]


async def test_a_worker_that_still_loads_becomes_ready_when_it_says_so(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model), ready=False)
    supervisor = await host.open()
    async with ended_at_the_end(left):
        assert supervisor.statuses()[0].state is WorkerState.STARTING
        assert supervisor.own_use().memory_mib == {"sim-0": 500}
        await supervisor.report_ready("w-1", "127.0.0.1:4321", b"engine", (420,))
        await host.wait_state("w-1", WorkerState.READY)


@pytest.mark.parametrize("noted", [True, False])
async def test_a_worker_that_is_older_than_its_load_might_have_taken_is_ready_all_the_same(
    host: Host, model: str, noted: bool
) -> None:
    """Also if it became ready while no pool manager was there to note it."""
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    change_record(host.folder, load_deadline_s=0.0, **({} if noted else {"ready_time": None}))

    class TakeTheirTime(PlayedCalls):
        async def adopt(self, address: str, access_token: str, ready_address: str) -> AdoptAnswer | None:
            for _ in range(10):  # whatever is due at once comes first
                await asyncio.sleep(0)
            return ENGINE

    host.calls = TakeTheirTime()
    supervisor = await host.open()
    async with ended_at_the_end(left):
        assert supervisor.statuses()[0].state is WorkerState.READY


async def test_a_load_has_no_more_time_than_it_had_in_the_life_before(
    host: Host, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_SAY_READY_S", 0.0)
    left = await left_by_a_life_before(host.folder, worker_spec(model), "stubborn", ready=False)
    change_record(host.folder, load_deadline_s=0.0)
    await host.open()
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert how.reason is Reason.MODEL_LOAD_FAILED
    assert "not ready within" in how.message
    assert reap(left) == -signal.SIGKILL


async def test_a_process_whose_id_was_never_noted_is_found_by_its_secret(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model), ready=False)
    change_record(host.folder, stage="intended", process=None)
    supervisor = await host.open()
    async with ended_at_the_end(left):
        assert supervisor.statuses()[0].pid == left.pid
        await host.wait_record("w-1", "started")
        assert record_of(host.folder)["process"] == asdict(left)


async def test_a_worker_whose_process_was_never_made_has_not_failed(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model), ready=False)
    os.kill(left.pid, signal.SIGKILL)
    reap(left)
    change_record(host.folder, stage="intended", process=None)
    supervisor = await host.open()
    assert supervisor.statuses() == ()
    assert record_of(host.folder)["stage"] == "ended"


@pytest.mark.parametrize("answer", [None, AdoptAnswer("another", b"engine", ())])
async def test_a_ready_worker_that_does_not_answer_as_itself_is_ended(
    host: Host, model: str, answer: AdoptAnswer | None
) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model), "stubborn")
    host.calls.adopt_answer = answer
    await host.open()
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert (how.signal, how.reason) == (signal.SIGKILL, Reason.ENGINE_FAILED)
    assert "did not answer" in how.message
    assert reap(left) == -signal.SIGKILL


async def test_a_stop_that_the_life_before_had_begun_goes_on(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    change_record(host.folder, stage="stopping")
    host.calls.adopt_answer = ENGINE
    await host.open()
    assert exit_of(await host.wait_state("w-1", WorkerState.EXITED)).reason is None
    assert reap(left) == -signal.SIGTERM


async def test_a_stop_is_on_disk_before_it_is_answered(host: Host, model: str) -> None:
    supervisor = await host.open("stubborn", stop_grace_s=0.2)
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.stop("w-1")
    assert record_of(host.folder)["stage"] == "stopping"
    await host.wait_state("w-1", WorkerState.EXITED)


async def test_a_worker_on_a_device_that_is_no_part_of_this_node_any_more_is_ended(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    change_record(host.folder, spec={**asdict(worker_spec(model)), "device_ids": ["sim-7"]})
    await host.open()
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert how.reason is Reason.DEVICE_NOT_FOUND
    assert reap(left) == -signal.SIGKILL


async def test_the_end_of_an_adopted_worker_is_reported_with_signal_and_last_lines(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    host.calls.adopt_answer = ENGINE
    await host.open()
    os.kill(left.pid, signal.SIGSEGV)
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert (how.signal, how.exit_code, how.last_lines[-1]) == (signal.SIGSEGV, None, "loading")
    reap(left)


@pytest.mark.parametrize(("stage", "state"), [("started", WorkerState.FAILED), ("stopping", WorkerState.EXITED)])
async def test_a_worker_that_ended_meanwhile_is_told_of(host: Host, model: str, stage: str, state: WorkerState) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))
    change_record(host.folder, stage=stage)
    os.kill(left.pid, signal.SIGKILL)
    reap(left)
    supervisor = await host.open()
    (status,) = supervisor.statuses()
    assert status.state is state
    assert record_of(host.folder)["stage"] == "ended"
    if state is WorkerState.FAILED:
        assert exit_of(status).last_lines[-1] == "loading"
        assert "away" in exit_of(status).message


@pytest.mark.parametrize(("field", "value"), [("start_ticks", 1), ("boot_id", "another boot")])
async def test_a_foreign_process_that_has_the_noted_id_now_is_not_touched(
    host: Host, model: str, field: str, value: object
) -> None:
    foreign = await left_by_a_life_before(host.folder, worker_spec(model))
    change_record(host.folder, process={**asdict(foreign), field: value})
    supervisor = await host.open()
    async with ended_at_the_end(foreign):
        assert supervisor.statuses()[0].state is WorkerState.FAILED
        assert host.calls.asked_to_adopt == []
        assert is_alive(foreign)


async def test_a_process_without_the_secret_is_not_touched_whatever_else_fits(host: Host, model: str) -> None:
    foreign = await left_by_a_life_before(host.folder, worker_spec(model))
    change_record(host.folder, access_token="another")
    host.calls.adopt_answer = ENGINE
    supervisor = await host.open()
    async with ended_at_the_end(foreign):
        assert supervisor.statuses()[0].state is WorkerState.FAILED
        assert host.calls.asked_to_adopt == []
        assert is_alive(foreign)


async def test_reports_are_put_off_until_everything_is_taken_back(host: Host, model: str) -> None:
    left = await left_by_a_life_before(host.folder, worker_spec(model))

    class Meanwhile(PlayedCalls):
        async def adopt(self, address: str, access_token: str, ready_address: str) -> AdoptAnswer | None:
            with pytest.raises(Unavailable):
                await host.supervisor.report_ready("w-2", "127.0.0.1:1", b"", ())
            with pytest.raises(Unavailable):
                await host.supervisor.start(worker_spec(model, "w-3"))
            return ENGINE

    host.calls = Meanwhile()
    supervisor = await host.open()
    async with ended_at_the_end(left):
        with pytest.raises(NotFound):
            await supervisor.report_ready("w-2", "127.0.0.1:1", b"", ())
