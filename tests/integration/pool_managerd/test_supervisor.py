import asyncio
import json
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from llorch.errors import AlreadyExists, FailedPrecondition, NotFound, Reason, Unavailable
from llorch.worker_state import WorkerState
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.saved_place import SavedPlace
from pool_managerd.workers import journal, records
from pool_managerd.workers.command import EnginePolicy
from pool_managerd.workers.identity import identify
from pool_managerd.workers.ports import PortRange
from pool_managerd.workers.stall import EngineSigns
from pool_managerd.workers.status import WorkerExit
from pool_managerd.workers.supervisor import NodeDevices
from support.free_ports import free_port
from support.worker_host import Host, eventually, worker_spec


def exit_of(status: object) -> WorkerExit:
    how = getattr(status, "exit", None)
    assert isinstance(how, WorkerExit)
    return how


@pytest.mark.req("POOL-2003")
async def test_a_worker_is_started_and_becomes_ready_when_it_says_so(host: Host, model: str) -> None:
    supervisor = await host.open()
    assert (await supervisor.start(worker_spec(model))).state is WorkerState.STARTING
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"engine", (420,))
    status = await host.wait_state("w-1", WorkerState.READY)
    assert status.address == "10.0.0.7:4321"
    assert status.access_token
    assert (status.engine, status.held_mib()) == (b"engine", (420,))
    assert status.ready_time is not None


async def test_a_worker_gets_its_command_and_nothing_from_the_environment_of_the_pool_manager(
    host: Host, model: str
) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    text = await host.wait_log("w-1", "loading")
    assert "--worker-id w-1 --engine sim" in text
    assert "--slots 2 --context-per-slot 1024" in text
    assert "--ready-address 127.0.0.1:1" in text
    assert "LLORCH_WORKER_ACCESS_TOKEN" in text
    assert "CUDA_VISIBLE_DEVICES" in text
    assert "SECRET_OF_THE_POOL_MANAGER" not in text


@pytest.mark.req("POOL-2003")
async def test_the_same_start_twice_is_one_worker(host: Host, model: str) -> None:
    supervisor = await host.open()
    await asyncio.gather(*(supervisor.start(worker_spec(model)) for _ in range(5)))
    assert len(supervisor.statuses()) == 1
    text = await host.wait_log("w-1", "loading")
    assert text.count("started with") == 1


@pytest.mark.req("POOL-2003")
async def test_another_start_under_a_used_id_is_refused(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    with pytest.raises(AlreadyExists) as refused:
        await supervisor.start(replace(worker_spec(model), slots=3))
    assert refused.value.reason is Reason.WORKER_ID_USED


@pytest.mark.req("POOL-2003")
async def test_a_start_after_its_own_stop_is_refused_also_in_the_next_life(host: Host, model: str) -> None:
    supervisor = await host.open()
    assert await supervisor.stop("w-1") is WorkerState.EXITED
    with pytest.raises(AlreadyExists):
        await supervisor.start(worker_spec(model))
    supervisor = await host.open()
    with pytest.raises(AlreadyExists):
        await supervisor.start(worker_spec(model))
    assert supervisor.statuses() == ()


async def test_a_start_that_was_refused_leaves_its_id_free(host: Host, model: str) -> None:
    supervisor = await host.open()
    with pytest.raises(NotFound) as refused:
        await supervisor.start(replace(worker_spec(model), device_ids=("sim-7",)))
    assert "sim-0" in refused.value.message
    with pytest.raises(NotFound):
        await supervisor.start(worker_spec("file:/nowhere/tiny.gguf"))
    assert (await supervisor.start(worker_spec(model))).state is WorkerState.STARTING


async def test_a_file_that_is_no_model_starts_no_process(host: Host, tmp_path: object) -> None:
    supervisor = await host.open()
    (host.folder / "page.gguf").write_text("<html>")
    with pytest.raises(FailedPrecondition) as refused:
        await supervisor.start(worker_spec(f"file:{host.folder}/page.gguf"))
    assert refused.value.reason is Reason.MODEL_FILE_INVALID
    assert supervisor.statuses() == ()


@pytest.mark.req("POOL-2004")
async def test_a_crash_while_loading_is_reported_with_code_and_last_lines(host: Host, model: str) -> None:
    supervisor = await host.open("crash")
    await supervisor.start(worker_spec(model))
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert (how.exit_code, how.signal, how.reason) == (3, None, Reason.MODEL_LOAD_FAILED)
    assert how.last_lines[-1] == "out of memory"


@pytest.mark.req("POOL-2004")
async def test_a_worker_that_is_killed_is_reported_with_its_signal(host: Host, model: str) -> None:
    supervisor = await host.open("killed")
    await supervisor.start(worker_spec(model))
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert (how.exit_code, how.signal) == (None, signal.SIGKILL)


@pytest.mark.req("POOL-2004")
async def test_a_ready_worker_that_dies_is_reported_within_a_second(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    pid = (await host.wait_state("w-1", WorkerState.READY)).pid
    began = asyncio.get_running_loop().time()
    host.kill(pid)
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert asyncio.get_running_loop().time() - began < 1
    assert (how.signal, how.reason) == (signal.SIGKILL, Reason.ENGINE_FAILED)


async def test_a_worker_says_why_it_fails_in_its_own_words(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    supervisor.report_failed("w-1", Reason.GPU_BUILD_MISSING, "this engine was built without CUDA")
    host.kill((await host.wait_status("w-1", lambda status: status.pid > 0)).pid)
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert (how.reason, how.message) == (Reason.GPU_BUILD_MISSING, "this engine was built without CUDA")


@pytest.mark.req("POOL-2003")
async def test_a_stop_ends_the_process_and_is_idempotent(host: Host, model: str) -> None:
    supervisor = await host.open("stubborn", stop_grace_s=0.2)
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    assert await supervisor.stop("w-1") is WorkerState.STOPPING
    assert await supervisor.stop("w-1") is WorkerState.STOPPING
    status = await host.wait_state("w-1", WorkerState.EXITED)
    assert exit_of(status).reason is None
    assert identify(status.pid) is None
    assert await supervisor.stop("w-1") is WorkerState.EXITED


@pytest.mark.req("POOL-2003")
async def test_a_ready_worker_is_asked_to_end_before_it_is_signalled(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    await supervisor.stop("w-1")
    await host.wait_state("w-1", WorkerState.EXITED)
    assert host.calls.asked_to_shut_down == ["10.0.0.7:4321"]


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_worker_that_ends_is_told_what_to_save_where_this_host_keeps_it(
    host: Host, model: str, keeps: bool
) -> None:
    saved = SavedPlace(Path("/nowhere"), 1, "k") if keeps else None
    supervisor = await host.open(policy=EnginePolicy(saved=saved))
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    await supervisor.stop("w-1", {"a" * 64: 9.0})
    await supervisor.stop("w-1", {"b" * 64: 9.0})
    await host.wait_state("w-1", WorkerState.EXITED)
    assert host.calls.asked_to_save == [{"a" * 64: 9.0} if keeps else {}]


@pytest.mark.req("POOL-2003")
async def test_a_worker_that_ignores_the_first_signal_is_killed_after_the_grace(host: Host, model: str) -> None:
    supervisor = await host.open("stubborn", stop_grace_s=0.05)
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.stop("w-1")
    how = exit_of(await host.wait_state("w-1", WorkerState.EXITED))
    assert how.signal == signal.SIGKILL


@pytest.mark.req("POOL-2004")
async def test_a_worker_that_does_not_become_ready_in_time_is_ended_and_has_failed(host: Host, model: str) -> None:
    supervisor = await host.open("stubborn", load_base_s=0.2, stop_grace_s=0.05)
    await supervisor.start(worker_spec(model))
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert how.reason is Reason.MODEL_LOAD_FAILED
    assert "not ready within" in how.message


async def test_a_worker_that_was_told_to_stop_does_not_become_ready(host: Host, model: str) -> None:
    supervisor = await host.open("stubborn")
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.stop("w-1")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    assert supervisor.statuses()[0].state is WorkerState.STOPPING


async def test_memory_counts_as_reserved_then_as_measured_then_not_at_all(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    assert supervisor.own_use().memory_mib == {"sim-0": 500}
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", (420,))
    assert supervisor.own_use().memory_mib == {"sim-0": 420}
    await supervisor.stop("w-1")
    await host.wait_state("w-1", WorkerState.EXITED)
    assert supervisor.own_use().memory_mib == {}
    assert not supervisor.own_use().pids


async def test_a_ready_token_stands_for_its_worker_only_while_it_lives(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    token = json.loads((host.folder / "workers" / "w-1.json").read_text())["ready_token"]
    assert supervisor.worker_by_ready_token(token) == "w-1"
    assert supervisor.worker_by_ready_token("another") is None
    assert supervisor.worker_by_ready_token("") is None
    await supervisor.stop("w-1")
    await host.wait_record("w-1", "ended")
    assert supervisor.worker_by_ready_token(token) is None


async def test_nothing_starts_once_the_end_has_begun(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.close(grace_s=5)
    assert supervisor.statuses()[0].state is WorkerState.EXITED
    with pytest.raises(Unavailable):
        await supervisor.start(worker_spec(model, "w-2"))


async def test_a_start_that_is_overtaken_by_the_end_makes_no_process(host: Host, model: str) -> None:
    supervisor = await host.open()
    find_model, go_on = supervisor._find_model, asyncio.Event()

    async def slow_disk(source: str) -> LocatedModel:
        await go_on.wait()
        return await find_model(source)

    supervisor._find_model = slow_disk
    starting = asyncio.create_task(supervisor.start(worker_spec(model)))
    await asyncio.sleep(0)
    await supervisor.close(grace_s=5)
    go_on.set()
    await starting
    status = await host.wait_state("w-1", WorkerState.EXITED)
    assert status.pid == 0


async def test_a_data_directory_that_takes_nothing_refuses_the_start(host: Host, model: str) -> None:
    supervisor = await host.open()
    (host.folder / "workers").rename(host.folder / "away")
    with pytest.raises(Unavailable) as refused:
        await supervisor.start(worker_spec(model))
    assert refused.value.reason is Reason.STORE_FAILED
    assert supervisor.statuses() == ()


async def test_a_program_that_can_not_be_executed_is_a_failed_worker(host: Host, model: str) -> None:
    supervisor = await host.open(program=("/nowhere/worker",))
    await supervisor.start(worker_spec(model))
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert "could not be started" in how.message


async def test_an_end_that_was_taken_note_of_is_forgotten_and_its_id_stays_used(host: Host, model: str) -> None:
    supervisor = await host.open("crash")
    await supervisor.start(worker_spec(model))
    await host.wait_state("w-1", WorkerState.FAILED)
    supervisor.forget_ended(["w-1", "unknown"])
    assert supervisor.statuses() == ()
    with pytest.raises(AlreadyExists):
        await supervisor.start(worker_spec(model))


@pytest.mark.req("POOL-2004")
async def test_a_worker_whose_engine_is_stuck_is_killed_and_told_of(host: Host, model: str) -> None:
    supervisor = await host.open("stubborn", stall_s=0.0)
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    supervisor.note_silence("w-1")  # one that loads is not asked yet
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    supervisor.note_stats("w-1", b"stats", EngineSigns(decoding=1, work_done=7))
    how = exit_of(await host.wait_state("w-1", WorkerState.FAILED))
    assert (how.signal, how.reason) == (signal.SIGKILL, Reason.ENGINE_FAILED)
    assert "made no step" in how.message
    assert host.calls.asked_to_shut_down == []


async def test_a_worker_that_does_not_answer_for_seconds_is_told_of_and_ends_at_once_when_it_is_to_stop(
    host: Host, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_managerd.workers.worker.SILENT_FOR_S", 0.0)
    supervisor = await host.open("stubborn")
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    supervisor.note_silence("w-1")
    (status,) = supervisor.statuses()
    assert not status.answers
    supervisor.note_stats("w-1", b"stats", EngineSigns(decoding=0, work_done=7))
    (status,) = supervisor.statuses()
    assert status.answers
    supervisor.note_silence("w-1")
    await supervisor.stop("w-1")
    how = exit_of(await host.wait_state("w-1", WorkerState.EXITED))
    assert how.signal == signal.SIGKILL
    assert host.calls.asked_to_shut_down == []


@pytest.mark.req("POOL-2004")
async def test_failures_in_a_row_are_told_for_who_decides_on_the_next_start(host: Host, model: str) -> None:
    supervisor = await host.open("crash")
    for number in (1, 2):
        await supervisor.start(worker_spec(model, f"w-{number}"))
        how = exit_of(await host.wait_state(f"w-{number}", WorkerState.FAILED))
        assert how.failures_in_a_row == number
        assert how.end_time is not None


async def test_a_worker_that_ends_as_told_has_not_failed(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.stop("w-1")
    assert exit_of(await host.wait_state("w-1", WorkerState.EXITED)).failures_in_a_row == 0


@pytest.mark.req("POOL-2004")
async def test_how_far_a_load_came_is_told_while_it_lasts_and_when_it_took_too_long(host: Host, model: str) -> None:
    supervisor = await host.open("stubborn", load_base_s=0.3, stop_grace_s=0.05)
    await supervisor.start(worker_spec(model))
    await supervisor.report_loading("w-1", "127.0.0.1:4321", 0.25)
    assert supervisor.statuses()[0].load_progress == 0.25
    assert "it had come to 25%" in exit_of(await host.wait_state("w-1", WorkerState.FAILED)).message


async def test_a_worker_listens_on_a_port_of_the_range_and_no_two_on_the_same(host: Host, model: str) -> None:
    first = free_port()
    supervisor = await host.open(ports=PortRange(first, min(first + 50, 65535)))
    for number in (1, 2):
        await supervisor.start(worker_spec(model, f"w-{number}"))
    ports = [json.loads((host.folder / "workers" / f"w-{number}.json").read_text())["address"] for number in (1, 2)]
    assert len(set(ports)) == 2
    for number, address in enumerate(ports, 1):
        assert f"--bind {address}" in await host.wait_log(f"w-{number}", "loading")


async def test_a_start_without_a_port_is_refused_and_leaves_its_id_free(host: Host, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        supervisor = await host.open(ports=PortRange(port, port))
        with pytest.raises(FailedPrecondition, match="worker_ports"):
            await supervisor.start(worker_spec(model))
    assert (await supervisor.start(worker_spec(model))).state is WorkerState.STARTING


async def test_a_report_that_comes_late_does_not_bring_an_ended_worker_back(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    await supervisor.stop("w-1")
    await host.wait_record("w-1", "ended")
    await supervisor.report_ready("w-1", "127.0.0.1:4322", b"", ())
    assert json.loads((host.folder / "workers" / "w-1.json").read_text())["stage"] == "ended"


async def test_a_report_that_says_nothing_new_costs_no_write(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_record("w-1", "started")
    for _ in range(2):
        await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
        if (record := host.folder / "workers" / "w-1.json").exists():
            assert json.loads(record.read_text())["ready_time"]
            record.unlink()
    assert not record.exists()


class HeldMemory:
    """Devices on which the memory of ended workers stays until it is given back."""

    def __init__(self, real: NodeDevices) -> None:
        self.by_id = real.by_id
        self.waited_s: list[float] = []
        self.back: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def memory_back(self, pid: int, within_s: float) -> bool:
        self.waited_s.append(within_s)
        return await self.back


@pytest.mark.req("POOL-2003")
async def test_a_stopped_worker_has_exited_when_its_memory_is_back_and_not_before(host: Host, model: str) -> None:
    supervisor = await host.open()
    devices = supervisor._devices = HeldMemory(supervisor._devices)
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.stop("w-1")
    await eventually(lambda: devices.waited_s == [10.0])
    assert supervisor.statuses()[0].state is WorkerState.STOPPING
    assert supervisor.own_use().memory_mib == {"sim-0": 500}
    devices.back.set_result(True)
    assert exit_of(await host.wait_state("w-1", WorkerState.EXITED)).message == ""


@pytest.mark.req("POOL-2003", "POOL-2004")
@pytest.mark.parametrize(
    ("crash", "state", "waits_s"), [(False, WorkerState.EXITED, 10.0), (True, WorkerState.FAILED, 0.5)]
)
async def test_memory_that_does_not_come_back_is_waited_for_within_bounds_and_told(
    host: Host, model: str, crash: bool, state: WorkerState, waits_s: float
) -> None:
    supervisor = await host.open()
    devices = supervisor._devices = HeldMemory(supervisor._devices)
    devices.back.set_result(False)
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    if crash:
        host.kill(supervisor.statuses()[0].pid)
    else:
        await supervisor.stop("w-1")
    how = exit_of(await host.wait_state("w-1", state))
    assert devices.waited_s == [waits_s]
    assert f"after {waits_s:g} s a device still counted memory of it" in how.message


async def test_records_of_ended_workers_are_bounded_while_it_runs(
    host: Host, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_FORGET_EVERY", 2)
    monkeypatch.setattr(journal, "_KEEP_ENDED", 1)
    supervisor = await host.open("crash")
    for number in range(4):
        await supervisor.start(worker_spec(model, f"w-{number}"))
        await host.wait_state(f"w-{number}", WorkerState.FAILED)
    await eventually(lambda: [path.stem for path in (host.folder / "workers").glob("*.json")] == ["w-3"])
    with pytest.raises(AlreadyExists):
        await supervisor.start(replace(worker_spec(model, "w-0"), slots=3))


async def test_that_tokens_begin_and_cease_to_come_is_told_at_once_and_all_else_later(host: Host, model: str) -> None:
    supervisor = await host.open()
    await supervisor.start(worker_spec(model))
    await host.wait_log("w-1", "loading")
    await supervisor.report_ready("w-1", "127.0.0.1:4321", b"", ())
    rung = []
    for makes_tokens in (False, True, True, False, False):
        before = host.bell.rings
        supervisor.note_stats("w-1", b"stats", EngineSigns(1, 7, makes_tokens=makes_tokens))
        rung.append(host.bell.rings > before)
    assert rung == [False, True, False, True, False]
