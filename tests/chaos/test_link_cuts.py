"""The line to the orchestrator is cut at any moment: the node is back at once with all it has, and its workers go on.

`make chaos` cuts 100 times, the suite a tenth of that.
"""

import asyncio
import random
import time
from pathlib import Path
from statistics import median

import pytest

from llama_orch.v2 import worker_pb2
from llorch.logs import get_logger
from support import chaos_count
from support.cuttable_line import cuttable
from support.orchestrator_stub import NodeReport, OrchestratorStub, serving, snapshot_of
from support.pool_manager_commands import commanding
from support.pool_manager_process import pool_manager_process
from support.whole_system import gguf

CUTS = chaos_count.of(100)
BACK_WITHIN_S = 5.0
SEED = 4

_log = get_logger(__name__)


def has_ready_worker(report: NodeReport) -> bool:
    return any(found.worker.state == worker_pb2.WORKER_STATE_READY for found in snapshot_of(report).workers)


@pytest.mark.req("POOL-2007")
@pytest.mark.timeout(chaos_count.within(120))
async def test_a_node_whose_line_is_cut_is_back_with_all_it_has(tmp_path: Path) -> None:
    orchestrator, back_s = OrchestratorStub(), []
    chance = random.Random(SEED)  # noqa: S311  # a schedule, no secret
    async with (
        serving(orchestrator) as address,
        cuttable(address) as line,
        pool_manager_process(tmp_path / "node", line.address) as node,
    ):
        await node.start()
        await orchestrator.wait_report(lambda report: report.report_seq == 2, within_s=30)
        async with commanding(node.address) as commands:
            await commands.start(f"file:{gguf(tmp_path)}", "w-1")
        await orchestrator.wait_report(has_ready_worker, within_s=30)
        pids = node.worker_pids()
        for cut in range(1, CUTS + 1):
            await asyncio.sleep(chance.uniform(0.0, 0.3))  # no waiting: the moment of the cut is what varies
            orchestrator.reports.clear()
            line.cut()
            began = time.monotonic()
            report = await orchestrator.wait_report(lambda report: report.report_seq == 1, within_s=BACK_WITHIN_S)
            back_s.append(time.monotonic() - began)
            assert has_ready_worker(report), f"cut {cut} of seed {SEED}"
            assert report.register.snapshot.full
        assert node.worker_pids() == pids
    _log.info("lines_cut", times=CUTS, median_s=round(median(back_s), 3), longest_s=round(max(back_s), 3))
