"""What the pool manager sees of its workers, and what the orchestrator and its clients hear of it."""

import asyncio
import json
from pathlib import Path

import pytest

from llama_orch.v2 import error_reason_pb2, worker_pb2
from llorch.ports import split_address
from pool_managerd.workers.ports import parse_worker_ports
from support.orchestrator_stub import OrchestratorStub, serving, snapshot_of
from support.pool_manager_commands import commanding
from support.pool_manager_process import pool_manager_process
from support.whole_system import SIM, STUCK, gguf, task, whole_system

READY = worker_pb2.WORKER_STATE_READY
FAILED = worker_pb2.WORKER_STATE_FAILED


@pytest.mark.req("POOL-2004")
async def test_a_worker_whose_engine_is_stuck_is_ended_and_the_next_task_gets_another(tmp_path: Path) -> None:
    """It still sends empty frames, so its orchestrator alone would never notice."""
    async with whole_system(tmp_path, engine_stall_s=1) as system:
        before = asyncio.create_task(system.generate(task(f"hello {STUCK}")))
        async with asyncio.timeout(30):
            while not (workers := [worker for worker in (await system.state()).workers if worker.state == READY]):
                await asyncio.sleep(0.02)
            stuck = workers[0].spec.worker_id
            events = await before
            assert events[-1].WhichOneof("event") == "error"
            after = await system.generate(task("hello"))
        assert after[-1].WhichOneof("event") == "end"
        (worker,) = (await system.state()).workers
        assert worker.spec.worker_id != stuck


@pytest.mark.req("POOL-2004")
async def test_a_long_answer_without_a_pause_is_not_taken_for_a_stuck_engine(tmp_path: Path) -> None:
    slow = json.dumps({**SIM, "prefill_tokens_per_s": 2, "decode_tokens_per_s": 4})
    async with whole_system(tmp_path, engine_stall_s=3, sim=slow) as system:
        events = await system.generate(task("a prompt of some words that takes its time", max_tokens=10))
        assert events[-1].WhichOneof("event") == "end"


@pytest.mark.req("POOL-2004")
async def test_a_load_is_told_of_while_it_goes_on_and_a_worker_listens_where_its_node_may(tmp_path: Path) -> None:
    orchestrator = OrchestratorStub()
    ports = parse_worker_ports("29300-29399")
    assert ports is not None
    async with (
        serving(orchestrator) as address,
        pool_manager_process(
            tmp_path / "pool", address, sim={"load_s": 2.5}, worker_ports=ports, stop_workers_on_exit=True
        ) as manager,
    ):
        await manager.start()
        await manager.snapshot()
        async with commanding(manager.address) as commands:
            await commands.start(f"file:{gguf(tmp_path)}", "w-1")
        seen: list[float] = []

        def is_ready(report: object) -> bool:
            workers = [entry.worker for entry in snapshot_of(report).workers]  # type: ignore[arg-type]
            seen.extend(worker.load_progress for worker in workers if worker.HasField("load_progress"))
            return any(worker.state == READY for worker in workers)

        report = await orchestrator.wait_report(is_ready, 20)
        assert seen == sorted(seen)
        assert 0 < seen[-1] <= 1
        (worker,) = snapshot_of(report).workers
        assert not worker.worker.HasField("load_progress")
        assert ports.first <= split_address(worker.endpoint.advertise_address)[1] <= ports.last
        assert await manager.terminate() == 0


@pytest.mark.req("POOL-2004")
async def test_a_worker_that_crashes_again_and_again_is_told_of_with_how_often(tmp_path: Path) -> None:
    orchestrator = OrchestratorStub()
    async with (
        serving(orchestrator) as address,
        pool_manager_process(tmp_path / "pool", address, sim={"fail_load": "the card is on fire"}) as manager,
    ):
        await manager.start()
        await manager.snapshot()
        async with commanding(manager.address) as commands:
            for number in (1, 2):
                worker_id = f"w-{number}"
                await commands.start(f"file:{gguf(tmp_path)}", worker_id)

                def has_failed(report: object, worker_id: str = worker_id) -> bool:
                    workers = [entry.worker for entry in snapshot_of(report).workers]  # type: ignore[arg-type]
                    return any(worker.spec.worker_id == worker_id and worker.state == FAILED for worker in workers)

                report = await orchestrator.wait_report(has_failed, 20)
                (how,) = (
                    entry.worker.exit
                    for entry in snapshot_of(report).workers
                    if entry.worker.spec.worker_id == worker_id
                )
                assert how.failures_in_a_row == number
                assert how.reason == error_reason_pb2.ERROR_REASON_MODEL_LOAD_FAILED
                assert how.message == "the card is on fire"
                assert "the card is on fire" in how.last_lines[-1]
        assert await manager.terminate() == 0
