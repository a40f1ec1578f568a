"""The worker as a process: how it begins, what it tells its pool manager, and how it ends."""

import asyncio
import json
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_orch.v2 import error_reason_pb2, run_pb2, worker_service_pb2, worker_service_pb2_grpc
from llorch.errors import Unauthenticated, Unavailable
from llorch.own_log import OwnLog
from llorch.rpc.client import call, open_stream
from support.free_ports import free_port
from support.worker_alone import StartProcess, connect, serve_pool_manager, worker_processes
from support.worker_service import CONTROL, run_spec


@pytest.fixture
async def start_process(tmp_path: Path) -> AsyncIterator[StartProcess]:
    async with worker_processes(tmp_path) as start:
        yield start


async def execute(stub: worker_service_pb2_grpc.WorkerServiceStub, spec: run_pb2.RunSpec) -> None:
    """One run to its end."""
    async with open_stream(stub.Execute, worker_service_pb2.ExecuteRequest(spec=spec)) as answers:
        async for _ in answers:
            pass


@pytest.mark.req("WORK-3009")
async def test_a_worker_serves_metrics_where_it_is_told_to(start_process: StartProcess) -> None:
    address = f"127.0.0.1:{free_port()}"
    worker = await start_process(metrics_bind=address)
    async with connect(await worker.address()) as stub:
        await execute(stub, run_spec(max_tokens=5))
    async with httpx.AsyncClient(trust_env=False) as http:
        metrics = (await http.get(f"http://{address}/metrics")).text
    assert 'llorch_worker_runs_total{engine="sim",engine_version="1",finish_reason="length",model="model"}' in metrics
    worker.process.terminate()
    assert (await worker.exit())[0] == 0


async def test_metrics_for_other_machines_need_a_token(start_process: StartProcess) -> None:
    worker = await start_process(metrics_bind="0.0.0.0:0")
    code, line = await worker.exit()
    assert code != 0
    assert "0.0.0.0:0 can be reached from other machines" in line


@pytest.mark.req("WORK-3001")
async def test_a_worker_reports_that_it_is_ready_and_serves(start_process: StartProcess) -> None:
    async with serve_pool_manager() as manager:
        worker = await start_process(ready_address=manager.address, slots="3", sim={"vram_mib": 900})
        report = await manager.report()
        assert (report.worker_id, report.engine.slots, list(report.engine.memory_mib)) == ("w1", 3, [900])
        assert report.failure_reason == error_reason_pb2.ERROR_REASON_UNSPECIFIED
        assert report.address == await worker.address()
        async with connect(report.address) as stub:
            info = await call(stub.GetInfo, worker_service_pb2.GetInfoRequest(), timeout_s=5)
            assert info.worker_id == "w1"
            await call(stub.Shutdown, worker_service_pb2.ShutdownRequest(), timeout_s=5)
        assert (await worker.exit())[0] == 0


async def test_a_caller_without_the_secret_is_refused(start_process: StartProcess) -> None:
    worker = await start_process()
    for token in ("", "wrong"):
        async with connect(await worker.address(), token) as stub:
            with pytest.raises(Unauthenticated):
                await call(stub.GetInfo, worker_service_pb2.GetInfoRequest(), timeout_s=5)


async def test_a_load_that_fails_is_reported_and_said_on_stderr(start_process: StartProcess) -> None:
    async with serve_pool_manager() as manager:
        worker = await start_process(ready_address=manager.address, sim={"fail_load": "the card is on fire"})
        report = await manager.report()
        assert report.failure_reason == error_reason_pb2.ERROR_REASON_MODEL_LOAD_FAILED
        assert report.failure_message == "the card is on fire"
        assert await worker.exit() == (1, "worker-orcd: the card is on fire")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"sim": '{"speed": 1}'}, "sim.speed"),
        ({"device": "tpu:0"}, "device"),
        ({"device": "cpu"}, "--allow-cpu"),
        ({"engine": "llama_cpp", "device": "cuda:GPU-1"}, "model_path"),
        ({"slots": "0"}, "--slots"),
        ({"bind": "0.0.0.0:0x"}, "bind"),
    ],
)
async def test_wrong_settings_end_it_with_one_line(
    start_process: StartProcess, flags: dict[str, Any], named: str
) -> None:
    if "sim" in flags:
        flags = {"sim": json.loads(flags["sim"])}
    code, line = await (await start_process(**flags)).exit()
    assert code in (1, 2)
    assert line.startswith("worker-orcd: ")
    assert named in line


async def test_a_signal_while_it_loads_ends_it(start_process: StartProcess) -> None:
    async with serve_pool_manager() as manager:
        worker = await start_process(ready_address=manager.address, sim={"load_s": 60})
        await manager.report(loading=True)
        worker.process.send_signal(signal.SIGTERM)
        assert (await worker.exit())[0] == 0
        assert all(report.loading for report in manager.reports)


async def test_a_signal_cancels_what_runs_and_the_reader_hears_the_end(start_process: StartProcess) -> None:
    worker = await start_process(sim={"decode_tokens_per_s": 100})
    async with connect(await worker.address()) as stub:
        request = worker_service_pb2.StartRunRequest(control=CONTROL, attempt_id="a", spec=run_spec(max_tokens=None))
        await call(stub.StartRun, request, timeout_s=5)
        ends = []
        async with open_stream(stub.StreamRuns, worker_service_pb2.StreamRunsRequest(control=CONTROL)) as frames:
            await anext(frames)
            worker.process.send_signal(signal.SIGTERM)
            async for answer in frames:
                ends += [delta.end for delta in answer.frame.deltas if delta.HasField("end")]
        assert len(ends) == 1
    assert (await worker.exit())[0] == 0


@pytest.mark.parametrize(
    ("fault", "code"), [({"kind": "abort"}, -signal.SIGABRT), ({"kind": "exit", "exit_code": 71}, 71)]
)
async def test_a_simulated_crash_ends_the_process(
    start_process: StartProcess, fault: dict[str, object], code: int
) -> None:
    worker = await start_process(sim={"faults": [{**fault, "at_token": 3, "marker": "boom"}]})
    async with connect(await worker.address()) as stub:
        with pytest.raises(Unavailable):
            await execute(stub, run_spec("boom"))
    assert (await worker.exit())[0] == code


async def test_a_worker_whose_pool_manager_is_gone_ends_by_itself(start_process: StartProcess) -> None:
    async with serve_pool_manager() as manager:
        worker = await start_process(ready_address=manager.address, orphan_grace_s="1")
        await manager.report()
    assert (await worker.exit())[0] == 0


async def test_a_pool_manager_that_comes_late_is_told_all_the_same(start_process: StartProcess) -> None:
    async with serve_pool_manager() as before:
        address = before.address
    worker = await start_process(ready_address=address)
    await worker.address()
    async with serve_pool_manager(address) as manager:
        assert (await manager.report()).worker_id == "w1"


async def test_the_log_of_a_worker_is_rotated_and_nothing_in_it_is_lost(
    start_process: StartProcess, tmp_path: Path
) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from llorch.own_log import OwnLog

        log = OwnLog(Path(sys.argv[1]), limit_bytes=1000)
        rotations = 0
        for number in range(200):
            os.write(1, b"out %d\\n" % number)  # as native code writes
            print("err", number, file=sys.stderr, flush=True)
            rotations += log.rotate_if_long()
        assert rotations == 2, rotations
    """
    path = tmp_path / "w.log"
    with path.open("ab") as log:
        program = (sys.executable, "-c", textwrap.dedent(code), str(path))
        process = await asyncio.create_subprocess_exec(*program, stdout=log, stderr=log)
    assert await process.wait() == 0, path.read_text()
    kept = (tmp_path / "w.log.1").read_text() + path.read_text()
    lines = kept.splitlines()
    first = int(lines[0].split()[1])
    assert lines == [f"{stream} {number}" for number in range(first, 200) for stream in ("out", "err")]
    assert path.stat().st_size < 1000


def test_a_log_that_is_not_ones_own_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_bytes(b"x" * 100)
    assert not OwnLog(path, limit_bytes=10).rotate_if_long()
    assert not OwnLog(tmp_path / "none.log", limit_bytes=10).rotate_if_long()
    assert path.stat().st_size == 100
