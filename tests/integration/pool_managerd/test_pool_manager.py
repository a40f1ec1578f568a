"""The whole daemon in this process: a simulated GPU, real worker processes, a stub for the orchestrator."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import control_pb2, node_link_pb2, tokens_pb2, worker_pb2
from llama_orch.v2 import pool_manager_service_pb2 as pb
from llama_orch.v2.pool_manager_service_pb2_grpc import PoolManagerServiceStub
from llorch.errors import AlreadyExists, FailedPrecondition, InvalidArgument, LlorchError, NotFound, Reason
from llorch.rpc.client import call, open_channel, open_stream
from pool_managerd.app import serve
from pool_managerd.settings import PoolManagerSettings
from support.orchestrator_stub import OrchestratorStub, serving, snapshot_of
from support.worker_host import eventually

READY = worker_pb2.WORKER_STATE_READY
EXITED = worker_pb2.WORKER_STATE_EXITED
FAILED = worker_pb2.WORKER_STATE_FAILED


@dataclass
class PoolManager:
    """A running pool manager as its orchestrator sees it."""

    stub: PoolManagerServiceStub
    address: str
    data_dir: Path
    orchestrator: OrchestratorStub
    command_seq: int = 0
    control_epoch: int = 1

    def control(self) -> control_pb2.ControlHeader:
        self.command_seq += 1
        return control_pb2.ControlHeader(
            cluster_id=self.orchestrator.cluster_id,
            control_epoch=self.control_epoch,
            command_seq=self.command_seq,
        )

    async def start(self, source: str, worker_id: str = "w-1", **fields: Any) -> worker_pb2.WorkerState.ValueType:
        spec = worker_pb2.WorkerSpec(
            **{
                "worker_id": worker_id,
                "model": "tiny",
                "source": source,
                "device_ids": ["sim-0"],
                "slots": 2,
                "context_per_slot": 1024,
                "reservation_mib": [500],
                **fields,
            }
        )
        request = pb.PoolManagerServiceStartWorkerRequest(control=self.control(), spec=spec)
        return (await call(self.stub.StartWorker, request, timeout_s=5)).state

    async def stop(self, worker_id: str = "w-1") -> worker_pb2.WorkerState.ValueType:
        request = pb.PoolManagerServiceStopWorkerRequest(control=self.control(), worker_id=worker_id)
        return (await call(self.stub.StopWorker, request, timeout_s=5)).state

    async def state(self) -> pb.PoolManagerServiceGetStateResponse:
        return await call(self.stub.GetState, pb.PoolManagerServiceGetStateRequest(), timeout_s=5)

    async def wait_worker(self, state: worker_pb2.WorkerState.ValueType) -> node_link_pb2.WorkerReport:
        """As the orchestrator hears of it."""
        report = await self.orchestrator.wait_report(
            lambda report: any(worker.worker.state == state for worker in snapshot_of(report).workers)
        )
        return next(worker for worker in snapshot_of(report).workers if worker.worker.state == state)


@asynccontextmanager
async def running(
    folder: Path, orchestrator: OrchestratorStub, address: str, **settings: Any
) -> AsyncIterator[PoolManager]:
    stop = asyncio.Event()
    address_file = folder / "address"
    address_file.unlink(missing_ok=True)
    given = PoolManagerSettings.model_validate(
        {
            "bind": "127.0.0.1:0",
            "orchestrator": address,
            "node_id": "garage",
            "data_dir": folder / "data",
            "simulate_gpu": ["RTX 3090:24GiB"],
            "address_file": address_file,
            "worker_ports": "any",
            "stop_workers_on_exit": True,
            **settings,
        }
    )
    daemon = asyncio.create_task(serve(given, stop))
    try:
        bound = await wait_address(address_file, daemon)
        async with open_channel(bound) as channel:
            yield PoolManager(PoolManagerServiceStub(channel), bound, given.data_dir, orchestrator)
    finally:
        stop.set()
        await daemon


async def wait_address(path: Path, daemon: asyncio.Task[None]) -> str:
    await eventually(lambda: path.exists() or daemon.done())
    if daemon.done():
        daemon.result()
    return path.read_text().strip()  # noqa: ASYNC240


@pytest.fixture
async def orchestrator() -> OrchestratorStub:
    return OrchestratorStub()


@pytest.fixture
async def manager(tmp_path: Path, orchestrator: OrchestratorStub) -> AsyncIterator[PoolManager]:
    async with serving(orchestrator) as address, running(tmp_path, orchestrator, address) as made:
        yield made


@pytest.mark.req("POOL-2007")
async def test_a_node_registers_with_everything_that_there_is(
    manager: PoolManager, orchestrator: OrchestratorStub
) -> None:
    report = await orchestrator.wait_report(lambda report: report.report_seq == 1)
    register = report.register
    assert (register.node_id, register.advertise_address) == ("garage", manager.address)
    assert register.protocol_min <= register.protocol_max
    assert register.version
    assert register.instance_id
    assert register.snapshot.full
    (device,) = register.snapshot.devices
    assert (device.device_id, device.name, device.memory_total_mib) == ("sim-0", "RTX 3090", 24576)
    (pool,) = register.snapshot.pools
    assert (pool.pool_id, list(pool.device_ids)) == ("garage", ["sim-0"])


@pytest.mark.req("POOL-2007")
async def test_heartbeats_go_on_when_nothing_changes_and_are_numbered(
    manager: PoolManager, orchestrator: OrchestratorStub
) -> None:
    report = await orchestrator.wait_report(lambda report: report.report_seq == 4)
    assert not report.heartbeat.snapshot.full
    assert [report.report_seq for report in orchestrator.reports] == [1, 2, 3, 4]


@pytest.mark.req("POOL-2003", "POOL-2007")
async def test_a_worker_is_reported_ready_with_the_way_to_reach_it(manager: PoolManager, model: str) -> None:
    await manager.start(model)
    report = await manager.wait_worker(READY)
    assert report.endpoint.advertise_address.startswith("127.0.0.1:")
    assert report.endpoint.access_token
    assert report.worker.engine.simulated
    assert report.worker.spec.slots == 2
    assert report.worker.pid > 0
    shown = (await manager.state()).snapshot.workers[0]
    assert shown.worker.state == READY
    assert not shown.HasField("endpoint")


@pytest.mark.req("POOL-2003")
async def test_a_stopped_worker_is_reported_until_the_orchestrator_knows(
    manager: PoolManager, orchestrator: OrchestratorStub, model: str
) -> None:
    orchestrator.acknowledges = False
    await manager.start(model)
    await manager.wait_worker(READY)
    await manager.stop()
    report = await manager.wait_worker(EXITED)
    assert not report.worker.exit.reason
    assert len((await manager.state()).snapshot.workers) == 1
    orchestrator.acknowledges = True
    await orchestrator.wait_report(lambda report: snapshot_of(report).full and not snapshot_of(report).workers)


@pytest.mark.req("POOL-2004")
async def test_a_worker_that_is_killed_is_reported_with_its_signal(manager: PoolManager, model: str) -> None:
    await manager.start(model)
    await manager.wait_worker(READY)
    pid = (await manager.state()).snapshot.workers[0].worker.pid
    os.kill(pid, signal.SIGKILL)
    report = await manager.wait_worker(FAILED)
    assert report.worker.exit.signal == 9
    assert report.worker.exit.message


async def test_reports_say_which_command_they_contain(
    manager: PoolManager, orchestrator: OrchestratorStub, model: str
) -> None:
    await orchestrator.wait_report(lambda report: report.report_seq >= 2)
    await manager.start(model)
    await orchestrator.wait_report(lambda report: report.applied_command_seq == 1)
    assert (await manager.state()).applied_command_seq == 1


@pytest.mark.req("POOL-2007")
async def test_a_superseded_orchestrator_is_refused(manager: PoolManager, model: str) -> None:
    manager.control_epoch = 3
    await manager.stop("w-0")
    manager.control_epoch = 2
    with pytest.raises(FailedPrecondition) as refused:
        await manager.start(model)
    assert refused.value.reason is Reason.STALE_EPOCH


async def test_another_cluster_may_not_command_a_node_that_follows_one(
    manager: PoolManager, orchestrator: OrchestratorStub, model: str
) -> None:
    await orchestrator.wait_report(lambda report: report.report_seq >= 2)
    orchestrator.cluster_id = "another"
    with pytest.raises(FailedPrecondition) as refused:
        await manager.start(model)
    assert refused.value.reason is Reason.STALE_EPOCH


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"worker_id": "a/b"}, "spec.worker_id"),
        ({"device_ids": []}, "spec.device_ids"),
        ({"slots": 0}, "spec.slots"),
        ({"context_per_slot": 1}, "spec.context_per_slot"),
        ({"cache_type_k": 9}, "spec.cache_type_k"),
        ({"reservation_mib": [1, 2]}, "spec.reservation_mib"),
        ({"adapters": ["x"]}, "spec.adapters"),
        ({"tensor_split": [1.0, 1.0]}, "spec.tensor_split"),
        ({"tensor_split": [0.0]}, "spec.tensor_split"),
        ({"source": "tiny.gguf"}, "source"),
    ],
)
async def test_a_specification_that_can_not_be_right_is_refused_by_field(
    manager: PoolManager, model: str, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await manager.start(**{"source": model, **fields})
    assert refused.value.violations[0].field == field


async def test_commands_without_a_header_are_refused(manager: PoolManager) -> None:
    with pytest.raises(InvalidArgument):
        await call(manager.stub.StopWorker, pb.PoolManagerServiceStopWorkerRequest(worker_id="w-1"), timeout_s=5)


@pytest.mark.req("POOL-2007")
async def test_workers_go_on_without_an_orchestrator_and_are_reported_to_the_next(tmp_path: Path, model: str) -> None:
    first, second = OrchestratorStub(), OrchestratorStub()
    async with serving(first) as address:
        daemon = running(tmp_path, first, address)
        manager = await daemon.__aenter__()
        await manager.start(model)
        await manager.wait_worker(READY)
    try:
        second.control_epoch = 2
        async with serving(second, bind=address):
            report = await second.wait_report(lambda report: report.report_seq == 1)
            (worker,) = report.register.snapshot.workers
            assert worker.worker.state == READY
    finally:
        await daemon.__aexit__(None, None, None)


@pytest.mark.req("POOL-2007")
async def test_a_wrong_token_is_told_once_and_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub = OrchestratorStub()
    async with serving(stub, token="right") as address, running(tmp_path, stub, address, token="wrong"):
        await wait_output(capsys, "set token in [pool_manager]")
    assert stub.reports == []


@pytest.mark.req("POOL-2007")
async def test_a_refusal_is_told_in_the_words_of_the_orchestrator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = OrchestratorStub()
    stub.refuse("upgrade this node to 2.0")
    async with serving(stub) as address, running(tmp_path, stub, address):
        await wait_output(capsys, "upgrade this node to 2.0")
    assert stub.links == 1


async def wait_output(capsys: pytest.CaptureFixture[str], words: str) -> None:
    seen: list[str] = []

    def said() -> bool:
        seen.extend(capsys.readouterr())
        return any(words in text for text in seen)

    await eventually(said)


@pytest.mark.req("POOL-2003")
async def test_no_worker_is_left_when_the_pool_manager_ends(
    tmp_path: Path, orchestrator: OrchestratorStub, model: str
) -> None:
    async with serving(orchestrator) as address, running(tmp_path, orchestrator, address) as manager:
        await manager.start(model)
        await manager.wait_worker(READY)
    # The suite's own rule does the rest: it fails if a process is left.
    record = json.loads((manager.data_dir / "workers" / "w-1.json").read_text())
    assert (record["stage"], record["access_token"]) == ("ended", "")


async def test_two_pool_managers_do_not_share_a_data_directory(
    manager: PoolManager, tmp_path: Path, orchestrator: OrchestratorStub
) -> None:
    with pytest.raises(FailedPrecondition, match="another pool manager"):
        async with running(tmp_path, orchestrator, "127.0.0.1:1"):
            pass


@pytest.mark.req("POOL-2006")
async def test_staging_a_file_of_this_host_is_complete_at_once_and_reported(
    manager: PoolManager, orchestrator: OrchestratorStub, model: str
) -> None:
    request = pb.StageModelRequest(control=manager.control(), source=model)
    async with open_stream(manager.stub.StageModel, request, timeout_s=5) as progress:
        steps = [step.progress async for step in progress]
    assert [(step.complete, step.done_mib, step.total_mib) for step in steps] == [(True, 1, 1)]
    report = await orchestrator.wait_report(lambda report: bool(snapshot_of(report).staged_models))
    assert snapshot_of(report).staged_models[0].source == model


async def test_deleting_a_file_outside_the_cache_forgets_it_and_leaves_it(manager: PoolManager, model: str) -> None:
    await manager.start(model)
    request = pb.DeleteStagedModelRequest(control=manager.control(), source=model)
    with pytest.raises(FailedPrecondition) as refused:
        await call(manager.stub.DeleteStagedModel, request, timeout_s=5)
    assert refused.value.reason is Reason.MODEL_IN_USE
    await manager.stop()
    await manager.wait_worker(EXITED)
    request = pb.DeleteStagedModelRequest(control=manager.control(), source=model)
    await call(manager.stub.DeleteStagedModel, request, timeout_s=5)
    assert Path(model.removeprefix("file:")).exists()  # noqa: ASYNC240
    assert not (await manager.state()).snapshot.staged_models


@pytest.mark.req("POOL-2012")
async def test_how_the_files_of_a_model_were_read_is_told_of_its_worker(manager: PoolManager, model: str) -> None:
    await manager.start(model)
    await manager.wait_worker(READY)
    async with asyncio.timeout(10):
        while not (worker := (await manager.state()).snapshot.workers[0].worker).HasField("reading"):
            await asyncio.sleep(0.01)
    assert worker.reading.file_mib == 1


async def test_staging_what_can_not_be_had_is_an_error_of_the_call(manager: PoolManager) -> None:
    for source, reason in (
        ("https://127.0.0.1/x.gguf", Reason.SOURCE_REFUSED),
        ("ftp://example.org/x.gguf", Reason.INVALID_FIELD),
        ("file:/nowhere.gguf", Reason.MODEL_FILE_MISSING),
    ):
        request = pb.StageModelRequest(control=manager.control(), source=source)
        async with open_stream(manager.stub.StageModel, request, timeout_s=5) as progress:
            with pytest.raises(LlorchError) as refused:
                [_ async for _ in progress]  # on a slow machine it may say how it goes first
        assert refused.value.reason is reason


async def test_the_log_of_a_worker_is_shown_and_followed_to_its_end(manager: PoolManager, model: str) -> None:
    await manager.start(model)
    await manager.wait_worker(READY)
    request = pb.PoolManagerServiceStreamWorkerLogRequest(worker_id="w-1", follow=True)
    async with open_stream(manager.stub.StreamWorkerLog, request, timeout_s=10) as log:
        lines = list((await anext(log)).lines)
        await manager.stop()
        async for message in log:
            lines += message.lines
    assert any("w-1" in line for line in lines)


async def test_the_log_of_an_unknown_worker_is_not_found(manager: PoolManager) -> None:
    request = pb.PoolManagerServiceStreamWorkerLogRequest(worker_id="unknown")
    async with open_stream(manager.stub.StreamWorkerLog, request, timeout_s=5) as log:
        with pytest.raises(NotFound) as refused:
            await anext(log)
    assert refused.value.reason is Reason.WORKER_NOT_FOUND


async def test_watching_tells_everything_and_then_what_changes(manager: PoolManager, model: str) -> None:
    request = pb.PoolManagerServiceWatchStateRequest()
    async with open_stream(manager.stub.WatchState, request, timeout_s=10) as states:
        assert (await anext(states)).snapshot.full
        await manager.start(model)
        async for state in states:
            if any(worker.worker.state == READY for worker in state.snapshot.workers):
                break


async def test_only_a_worker_itself_says_that_it_is_ready(manager: PoolManager, model: str) -> None:
    await manager.start(model)
    request = pb.ReportWorkerReadyRequest(worker_id="w-1", address="127.0.0.1:1")
    with pytest.raises(LlorchError) as refused:
        await call(manager.stub.ReportWorkerReady, request, timeout_s=5)
    assert refused.value.reason is Reason.NOT_PERMITTED


async def test_the_token_of_a_worker_is_good_for_nothing_else(manager: PoolManager, model: str) -> None:
    await manager.start(model)
    token = json.loads((manager.data_dir / "workers" / "w-1.json").read_text())["ready_token"]
    with pytest.raises(LlorchError) as refused:
        await call(manager.stub.GetState, pb.PoolManagerServiceGetStateRequest(), timeout_s=5, token=token)
    assert refused.value.reason is Reason.NOT_PERMITTED
    with pytest.raises(LlorchError) as not_told:
        await call(manager.stub.ReadStagedTokens, tokens_request(model), timeout_s=5, token=token)
    assert not_told.value.reason is Reason.NOT_PERMITTED
    request = pb.ReportWorkerReadyRequest(worker_id="w-2", address="127.0.0.1:1")
    with pytest.raises(LlorchError):
        await call(manager.stub.ReportWorkerReady, request, timeout_s=5, token=token)


def tokens_request(source: str, engine: str = "sim") -> pb.ReadStagedTokensRequest:
    question = tokens_pb2.TokenQuestion(text=tokens_pb2.TextToTokenize(text="abcdef", with_pieces=True))
    return pb.ReadStagedTokensRequest(source=source, engine=engine, question=question)


async def test_tokens_are_told_by_the_file_of_a_model_and_nothing_is_staged_for_it(
    manager: PoolManager, model: str
) -> None:
    before = (await manager.state()).snapshot.staged_models
    told = await call(manager.stub.ReadStagedTokens, tokens_request(model), timeout_s=20)
    assert list(told.answer.pieces) == [b"abcd", b"ef"]
    assert (await manager.state()).snapshot.staged_models == before
    for request, reason in (
        (tokens_request(model, "vllm"), Reason.INVALID_FIELD),
        (tokens_request(f"{model}.none"), Reason.MODEL_FILE_MISSING),
        (tokens_request("nothing"), Reason.INVALID_FIELD),
    ):
        with pytest.raises(LlorchError) as refused:
            await call(manager.stub.ReadStagedTokens, request, timeout_s=5)
        assert refused.value.reason is reason


async def test_starting_again_under_a_used_id_is_refused(manager: PoolManager, model: str) -> None:
    await manager.stop("w-1")
    with pytest.raises(AlreadyExists) as refused:
        await manager.start(model)
    assert refused.value.reason is Reason.WORKER_ID_USED


async def test_a_bind_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    settings = PoolManagerSettings.model_validate(
        {"bind": "0.0.0.0:0", "data_dir": tmp_path, "simulate_gpu": ["A:1GiB"]}
    )
    with pytest.raises(FailedPrecondition) as refused:
        await serve(settings, asyncio.Event())
    assert refused.value.reason is Reason.TOKEN_MISSING
