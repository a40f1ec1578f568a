"""What the heartbeats of a large node cost: 8 GPUs, all a little warmer or cooler every second, and 16 workers.

The real link is held to a stub of the orchestrator in the same process, so the processor time is that of both ends.
Run it by `make bench`; the result goes to `bench-results/heartbeat.json` and to the terminal.
"""

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llorch.clock import SystemClock
from pool_managerd.bell import Bell
from pool_managerd.control import ControlGuard
from pool_managerd.link.node_link import NodeIdentity, NodeLink
from pool_managerd.node_state import NodeState
from support.large_node import WORKERS, large_node
from support.orchestrator_stub import OrchestratorStub, serving, snapshot_of

HEARTBEATS = 100  # a tenth of a second apart
RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


class Moments:
    """Another state of the node at every look."""

    def __init__(self, busy_workers: int) -> None:
        self._busy_workers = busy_workers
        self._second = 0

    def __call__(self) -> NodeState:
        self._second += 1
        return large_node(self._second, busy_workers=self._busy_workers)


async def measure(folder: Path, busy_workers: int) -> dict[str, float]:
    orchestrator = OrchestratorStub()
    async with serving(orchestrator) as address:
        link = NodeLink(
            orchestrator=address,
            token=None,
            identity=NodeIdentity("garage", "bench", "0", "127.0.0.1:1"),
            state=Moments(busy_workers),
            bell=Bell(),
            guard=ControlGuard(folder / f"control-{busy_workers}"),
            ends_known=lambda _: None,
            clock=SystemClock(),
        )
        holding = asyncio.create_task(link.run())
        try:
            await orchestrator.wait_report(lambda report: report.report_seq == 1 + 10)
            began, first = time.process_time(), len(orchestrator.reports)
            await orchestrator.wait_report(lambda report: report.report_seq == first + HEARTBEATS, within_s=60)
            spent_ms = (time.process_time() - began) * 1000
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
    told = [report.ByteSize() for report in orchestrator.reports[first:] if not snapshot_of(report).full]
    return {"bytes": max(told), "cpu_ms": spent_ms / HEARTBEATS}


async def measure_all() -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        return {f"{busy} of {WORKERS} workers busy": await measure(Path(folder), busy) for busy in (0, 2, WORKERS)}


def main() -> None:
    measured: dict[str, Any] = asyncio.run(measure_all())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "heartbeat.json").write_text(json.dumps(measured, indent=2) + "\n")
    table = Table(
        "heartbeat of 8 GPUs and 16 workers", "bytes (bar: ≤ 4096)", "ms of a processor, both ends (bar: ≤ 2)"
    )
    for name, figures in measured.items():
        table.add_row(name, f"{figures['bytes']:.0f}", f"{figures['cpu_ms']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
