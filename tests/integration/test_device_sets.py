"""A worker over several devices of a node: one process, and what it holds of each is reported."""

from pathlib import Path

import pytest

from llama_orch.v2 import node_link_pb2, worker_pb2
from support.gguf_writer import smallest_model
from support.orchestrator_stub import OrchestratorStub, serving, snapshot_of
from support.pool_manager_commands import commanding
from support.pool_manager_process import pool_manager_process

SETTINGS = """
[pool_manager]
simulate_gpu = ["RTX 3090:24GiB", "RTX 3090:24GiB", "RTX 3060:12GiB"]
"""


def used(report: node_link_pb2.NodeReport) -> dict[str, int]:
    return {device.device_id: device.memory_used_mib for device in snapshot_of(report).devices}


def in_state(report: node_link_pb2.NodeReport, state: worker_pb2.WorkerState.ValueType) -> list[worker_pb2.Worker]:
    return [found.worker for found in snapshot_of(report).workers if found.worker.state == state]


@pytest.mark.req("POOL-2001", "POOL-2003")
async def test_a_worker_over_two_devices_is_reported_on_both_and_on_no_other(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(smallest_model())
    orchestrator = OrchestratorStub()
    node = pool_manager_process(tmp_path / "node", "", sim={"vram_mib": 9000, "load_s": 3}, simulate_gpu=None)
    async with serving(orchestrator) as address, node as process:
        process.orchestrator = address
        process.config.write_text(SETTINGS)
        await process.start()
        await orchestrator.wait_report(lambda report: report.report_seq == 2, within_s=20)
        async with commanding(process.address) as commands:
            spread = {"device_ids": ["sim-2", "sim-0"], "tensor_split": [1.0, 2.0], "reservation_mib": [3000, 6000]}
            await commands.start(f"file:{tmp_path}/tiny.gguf", "w-1", **spread)
            reserved = await orchestrator.wait_report(lambda report: used(report).get("sim-0") == 6000)
            assert used(reserved)["sim-2"] == 3000
            ready = await orchestrator.wait_report(
                lambda report: bool(in_state(report, worker_pb2.WORKER_STATE_READY)), within_s=30
            )
            (worker,) = in_state(ready, worker_pb2.WORKER_STATE_READY)
            assert list(worker.spec.device_ids) == ["sim-2", "sim-0"]
            assert list(worker.engine.memory_mib) == [4500, 4500]
            await orchestrator.wait_report(lambda report: used(report).get("sim-0") == 4500)
            held = {device.device_id: device.memory_used_mib for device in (await process.snapshot()).devices}
            assert held == {"sim-0": 4500, "sim-1": 0, "sim-2": 4500}
            await commands.stop("w-1")
        await orchestrator.wait_report(
            lambda report: report.report_seq > ready.report_seq and used(report).get("sim-0") == 0
        )
