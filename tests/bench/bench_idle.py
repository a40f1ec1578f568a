"""What the daemons cost when no client asks for anything: memory of each, processor time of all together.

A worker with the simulated engine is loaded and idle, so that its frames and reports are part of what is
measured. Run it by `make bench`; the result goes to `bench-results/idle.json` and to the terminal.
"""

import asyncio
import json
import tempfile
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from llama_orch.v2 import fleet_service_pb2
from llorch.sdk.async_client import AsyncClient
from llorch.system.lifetime import with_system
from llorch.system.local_system import LocalSystem
from llorch.system.options import ANY_PORT, SystemOptions
from support import living_processes

SETTLE_S = 5
MEASURE_S = 30
RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


def processes() -> dict[str, psutil.Process]:
    """The daemons by name, without the worker: how much a worker takes is its model's business."""
    found = {}
    for child, command in living_processes.below(psutil.Process()):
        name = command[command.index("-m") + 1]
        if name != "worker_orcd":
            found[name] = child
    return found


def processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(system: LocalSystem, _: fleet_service_pb2.State) -> dict[str, dict[str, float]]:
    async with AsyncClient(system.grpc_address) as client:
        async for _event in client.generate("smollm2", "wake a worker", max_tokens=1):
            pass
    await asyncio.sleep(SETTLE_S)
    before = {name: processor_s(process) for name, process in processes().items()}
    await asyncio.sleep(MEASURE_S)
    return {
        name: {
            "cpu_percent": (processor_s(process) - before[name]) / MEASURE_S * 100,
            "rss_mib": process.memory_info().rss / 2**20,
        }
        for name, process in processes().items()
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = SystemOptions(
            data_dir=Path(folder),
            simulate_gpu=("RTX 3090:24GiB",),
            http=ANY_PORT,
            grpc=ANY_PORT,
            pool_manager=ANY_PORT,
        )
        measured = with_system(options, lambda *_: None, measure)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "idle.json").write_text(json.dumps(measured, indent=2) + "\n")
    table = Table("daemon", "% of a core", "memory (MiB)")
    for name, figures in measured.items():
        table.add_row(name, f"{figures['cpu_percent']:.2f}", f"{figures['rss_mib']:.0f}")
    together = sum(figures["cpu_percent"] for figures in measured.values())
    table.add_section()
    table.add_row("together (bar: ≤ 1; each ≤ 80)", f"{together:.2f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
