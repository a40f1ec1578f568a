"""What the heartbeats of a large node cost it: 8 GPUs, all a little warmer or cooler every second, and 16 workers.

The real link is held to a stub of the orchestrator in a process of its own. Run it by `make bench`; the result goes to
`bench-results/heartbeat.json` and to the terminal.
"""

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from llorch.clock import SystemClock
from llorch.logs import configure_logging
from pool_managerd.bell import Bell
from pool_managerd.control import ControlGuard
from pool_managerd.link.node_link import NodeIdentity, NodeLink
from pool_managerd.node_state import NodeState
from support.large_node import WORKERS, large_node
from support.orchestrator_stub import OrchestratorStub, serving, snapshot_of

HEARTBEATS = 100  # a tenth of a second apart
WARM_UP = 20
WITHIN_S = 60.0
RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


class Moments:
    """Another state of the node at every look; at two of them the time is taken."""

    def __init__(self, busy_workers: int) -> None:
        self.cpu_s: list[float] = []
        self.measured = asyncio.Event()
        self._states = [large_node(second, busy_workers=busy_workers) for second in range(WARM_UP + HEARTBEATS + 1)]
        self._looks = 0

    def __call__(self) -> NodeState:
        self._looks += 1
        if self._looks in (WARM_UP, WARM_UP + HEARTBEATS):
            self.cpu_s.append(time.process_time())
        if self._looks == WARM_UP + HEARTBEATS:
            self.measured.set()
        return self._states[min(self._looks, len(self._states) - 1)]


def play_orchestrator(to_bench: Connection) -> None:
    """In its own process: tells its address, and when asked the sizes of the deltas that came."""
    asyncio.run(_play_orchestrator(to_bench))


async def _play_orchestrator(to_bench: Connection) -> None:
    configure_logging("bench", "error")
    stub = OrchestratorStub()
    async with serving(stub) as address:
        to_bench.send(address)
        await asyncio.to_thread(to_bench.recv)
        to_bench.send([report.ByteSize() for report in stub.reports if not snapshot_of(report).full])


@contextmanager
def orchestrator() -> Iterator[Connection]:
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=play_orchestrator, args=(theirs,))
    process.start()
    try:
        yield ours
    finally:
        process.join(timeout=5)
        process.kill()


async def hold_link(address: str, moments: Moments, folder: Path) -> None:
    link = NodeLink(
        orchestrator=address,
        token=None,
        identity=NodeIdentity("garage", "bench", "0", "127.0.0.1:1"),
        state=moments,
        bell=Bell(),
        guard=ControlGuard(folder / "control"),
        ends_known=lambda _: None,
        clock=SystemClock(),
    )
    holding = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(WITHIN_S):
            await moments.measured.wait()
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def measure(busy_workers: int) -> dict[str, float]:
    moments = Moments(busy_workers)
    with orchestrator() as far_end, tempfile.TemporaryDirectory() as folder:
        await hold_link(await asyncio.to_thread(far_end.recv), moments, Path(folder))
        far_end.send("that was all")
        sizes = await asyncio.to_thread(far_end.recv)
    began_s, ended_s = moments.cpu_s
    return {"bytes": max(sizes), "cpu_ms": (ended_s - began_s) * 1000 / HEARTBEATS}


async def measure_all() -> dict[str, dict[str, float]]:
    return {f"{busy} of {WORKERS} workers busy": await measure(busy) for busy in (0, 2, WORKERS)}


def main() -> None:
    configure_logging("bench", "error")
    measured = uvloop.run(measure_all())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "heartbeat.json").write_text(json.dumps(measured, indent=2) + "\n")
    table = Table("heartbeat of 8 GPUs and 16 workers", "bytes (bar: ≤ 4096)", "ms of a processor (bar: ≤ 2)")
    for name, figures in measured.items():
        table.add_row(name, f"{figures['bytes']:.0f}", f"{figures['cpu_ms']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
