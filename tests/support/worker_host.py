"""A supervisor over real processes that only play the part of a worker."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from llorch.background import TaskSupervisor
from llorch.clock import SystemClock
from llorch.simulated_gpu import SimulatedGpu
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from pool_managerd.bell import Bell
from pool_managerd.devices.device import OwnUse
from pool_managerd.devices.monitor import DeviceMonitor
from pool_managerd.devices.simulated import SimulatedInventory
from pool_managerd.models.shelf import ModelShelf
from pool_managerd.workers.command import EnginePolicy
from pool_managerd.workers.journal import Journal
from pool_managerd.workers.rules import WorkerRules
from pool_managerd.workers.status import AdoptAnswer, WorkerStatus
from pool_managerd.workers.supervisor import Supervisor
from support.gguf_writer import smallest_model

# What the played worker does is its first argument; the worker's own flags follow and are printed.
FAKE_WORKER = """
import os, signal, sys, time
print("started with", *sys.argv[2:], flush=True)
part = sys.argv[1]
if part == "crash":
    print("out of memory", file=sys.stderr)
    sys.exit(3)
if part == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if part == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("environment", *sorted(os.environ), flush=True)
print("loading", flush=True)
time.sleep(600)
"""

GGUF = smallest_model()


def worker_spec(source: str, worker_id: str = "w-1") -> WorkerSpec:
    return WorkerSpec(
        worker_id=worker_id,
        model="tiny",
        source=source,
        device_ids=("sim-0",),
        slots=2,
        context_per_slot=1024,
        reservation_mib=(500,),
    )


@dataclass
class Host:
    """What stands around a supervisor, with a way to wait for its news."""

    folder: Path
    tasks: TaskSupervisor
    supervisor: Supervisor = field(init=False)
    bell: Bell = field(default_factory=Bell)
    calls: "PlayedCalls" = field(default_factory=lambda: PlayedCalls())  # noqa: PLW0108  # it is defined below

    async def open(self, part: str = "patient", **rules: object) -> Supervisor:
        """A supervisor whose workers play this part; called again, the next life of the same one."""
        script = self.folder / "fake_worker.py"
        script.write_text(FAKE_WORKER)
        for name in ("logs", "workers"):
            (self.folder / name).mkdir(exist_ok=True)
        inventory = SimulatedInventory([SimulatedGpu("RTX 3090", 24576)])
        monitor = DeviceMonitor(inventory, self.bell.ring)
        await monitor.sample(OwnUse())
        standard = WorkerRules(
            bind_host="127.0.0.1",
            stop_grace_s=5.0,
            policy=EnginePolicy(),
            logs=self.folder / "logs",
            environment={**os.environ, "SECRET_OF_THE_POOL_MANAGER": "x"},
            program=(sys.executable, "-I", "-S", str(script), part),
        )
        self.supervisor = Supervisor(
            rules=replace(standard, **rules),  # type: ignore[arg-type]  # the test knows them
            journal=Journal(self.folder / "workers"),
            devices=monitor,
            find_model=ModelShelf().find,
            calls=self.calls,
            changed=self.bell.ring,
            tasks=self.tasks,
            clock=SystemClock(),
        )
        await self.supervisor.recall()
        await self.supervisor.open(ready_address="127.0.0.1:1", advertise_host="10.0.0.7")
        return self.supervisor

    async def wait_state(self, worker_id: str, *states: WorkerState) -> WorkerStatus:
        return await self.wait_status(worker_id, lambda status: status.state in states)

    async def wait_status(self, worker_id: str, wanted: Callable[[WorkerStatus], bool]) -> WorkerStatus:
        async with asyncio.timeout(10):
            while True:
                seen = self.bell.rings
                for status in self.supervisor.statuses():
                    if status.spec.worker_id == worker_id and wanted(status):
                        return status
                await self.bell.wait_rung(seen, 10)

    async def wait_log(self, worker_id: str, words: str) -> str:
        path, _ = self.supervisor.log_of(worker_id)
        await eventually(lambda: words in path.read_text())
        return path.read_text()

    async def wait_record(self, worker_id: str, stage: str) -> None:
        path = self.folder / "workers" / f"{worker_id}.json"
        await eventually(lambda: json.loads(path.read_text())["stage"] == stage)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


@dataclass
class PlayedCalls:
    """Played workers don't listen: what they answer is set by the test."""

    asked_to_shut_down: list[str] = field(default_factory=list)
    asked_to_save: list[dict[str, float]] = field(default_factory=list)
    asked_to_adopt: list[tuple[str, str]] = field(default_factory=list)
    adopt_answer: AdoptAnswer | None = None

    async def shut_down(self, address: str, access_token: str, save_s: Mapping[str, float]) -> bool:
        self.asked_to_shut_down.append(address)
        self.asked_to_save.append(dict(save_s))
        return False

    async def adopt(self, address: str, access_token: str, ready_address: str) -> AdoptAnswer | None:
        self.asked_to_adopt.append((address, ready_address))
        return self.adopt_answer


async def eventually(condition: Callable[[], bool]) -> None:
    """Polls for what another process brings about, of which no event tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
