"""How long it takes until another model is ready on a device, against what the disk alone would take for its file.

One model leaves, another comes, with a real engine on the CPU and weights of noise; cold (the page cache has nothing of
the file) and warm. Run it by `make bench`; the result goes to `bench-results/swap.json` and to the terminal.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llama_orch.v2 import pool_manager_service_pb2 as pb
from llama_orch.v2 import worker_pb2
from llorch.rpc.client import call
from support import tiny_models
from support.orchestrator_stub import OrchestratorStub, serving
from support.pool_manager_commands import CALL_S, PoolManagerCommands, commanding
from support.pool_manager_process import PoolManagerProcess, pool_manager_process

ROUNDS = 2
FEED_FORWARD = 21_760  # makes a file of about 130 MiB
POLL_S = 0.005
READY_WITHIN_S = 60.0
RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


def forget(path: Path) -> None:
    """Lets the page cache drop the file."""
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def disk_s(path: Path) -> float:
    """What reading the whole file takes when nothing of it is in memory."""
    forget(path)
    began = time.monotonic()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while file.read(8 * 2**20):
            pass
    return time.monotonic() - began


class Host:
    """One pool manager, one worker at a time."""

    def __init__(self, manager: PoolManagerProcess, commands: PoolManagerCommands) -> None:
        self._manager = manager
        self._commands = commands
        self._ids = (f"w-{number}" for number in count(1))
        self._running = ""

    async def swap(self, path: Path) -> float:
        """Seconds from the stop of what runs to the next one's being ready."""
        began = time.monotonic()
        if self._running:
            await self._commands.stop(self._running)
            await self._wait_states(self._running, None, worker_pb2.WORKER_STATE_EXITED)
        self._running = next(self._ids)
        await self._commands.start(
            f"file:{path}", self._running, device_ids=["cpu"], slots=1, context_per_slot=512, reservation_mib=[1000]
        )
        await self._wait_states(self._running, worker_pb2.WORKER_STATE_READY)
        return time.monotonic() - began

    async def _wait_states(self, worker_id: str, *wanted: "worker_pb2.WorkerState.ValueType | None") -> None:
        """None: it is not told of any more, as its end is known."""
        async with asyncio.timeout(READY_WITHIN_S):
            while await self._state(worker_id) not in wanted:
                await asyncio.sleep(POLL_S)

    async def _state(self, worker_id: str) -> "worker_pb2.WorkerState.ValueType | None":
        request = pb.PoolManagerServiceGetStateRequest()
        answer = await call(self._commands.stub.GetState, request, timeout_s=CALL_S)
        workers = {report.worker.spec.worker_id: report.worker.state for report in answer.snapshot.workers}
        return workers.get(worker_id)


async def measure(folder: Path) -> dict[str, float]:
    tiny_models.FEED_FORWARD = FEED_FORWARD
    paths = [tiny_models.write_tiny_model(folder, "llama").rename(folder / f"{name}.gguf") for name in "ab"]
    size_mib = paths[0].stat().st_size / 2**20
    disk = statistics.median(disk_s(path) for path in paths for _ in range(2))
    cold: list[float] = []
    warm: list[float] = []
    orchestrator = OrchestratorStub()
    flags: dict[str, Any] = {"simulate_gpu": None, "allow_cpu": True}
    async with serving(orchestrator) as address, pool_manager_process(folder / "node", address, **flags) as manager:
        await manager.start()
        await manager.snapshot()
        async with commanding(manager.address, orchestrator.cluster_id) as commands:
            host = Host(manager, commands)
            for path in paths * ROUNDS:
                forget(path)
                cold.append(await host.swap(path))
            warm += [await host.swap(path) for path in paths * ROUNDS]
    return {
        "file_mib": size_mib,
        "disk_mib_per_s": size_mib / disk,
        "disk_s": disk,
        "cold_swap_s": statistics.median(cold),
        "warm_swap_s": statistics.median(warm),
        "cold_to_disk": statistics.median(cold) / disk,
    }


def main() -> None:
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:  # not in memory, as /tmp may be
        figures = asyncio.run(measure(Path(folder)))
    (RESULTS / "swap.json").write_text(json.dumps(figures, indent=2) + "\n")
    table = Table("", "", title="Another model on the same device")
    table.add_row("file", f"{figures['file_mib']:.0f} MiB")
    table.add_row("disk", f"{figures['disk_mib_per_s']:.0f} MiB/s: {figures['disk_s']:.2f} s for the file")
    table.add_row("swap, file on disk", f"{figures['cold_swap_s']:.2f} s ({figures['cold_to_disk']:.1f} × the disk)")
    table.add_row("swap, file in memory", f"{figures['warm_swap_s']:.2f} s")
    Console().print(table)


if __name__ == "__main__":
    main()
