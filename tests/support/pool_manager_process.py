"""The pool manager as a process that can be killed and started again, with simulated GPUs and workers."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from llama_orch.v2 import node_link_pb2
from llama_orch.v2 import pool_manager_service_pb2 as pb
from llama_orch.v2.pool_manager_service_pb2_grpc import PoolManagerServiceStub
from llorch.errors import LlorchError
from llorch.rpc.client import call, open_channel
from pool_managerd.workers.identity import has_variable, identify
from support.daemon_process import DaemonProcess

SERVES_WITHIN_S = 20.0
_POLL_S = 0.01
_MOMENT_S, _MOMENTS = 0.001, 1000
_MARK = "LLORCH_CONFIG"


@dataclass
class PoolManagerProcess(DaemonProcess):
    """Its workers inherit a path of its own, so that they are found whatever process is their parent."""

    module: ClassVar[str] = "pool_managerd"
    orchestrator: str
    sim: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config = self.folder / "settings.toml"
        self.config.touch()

    def usual_flags(self) -> Mapping[str, object]:
        return {
            "config": self.config,
            "orchestrator": self.orchestrator,
            "node_id": "garage",
            "data_dir": self.folder / "data",
            "simulate_gpu": "RTX 3090:24GiB",
            "sim": json.dumps(self.sim),
            "worker_ports": "any",
        }

    async def snapshot(self, within_s: float = SERVES_WITHIN_S) -> node_link_pb2.NodeSnapshot:
        """Its snapshot, once it serves."""
        async with asyncio.timeout(within_s), open_channel(self.address) as channel:
            stub = PoolManagerServiceStub(channel)
            while True:
                self.check_runs()
                try:
                    answer = await call(stub.GetState, pb.PoolManagerServiceGetStateRequest(), timeout_s=2)
                except LlorchError:
                    await asyncio.sleep(_POLL_S)
                else:
                    return answer.snapshot

    def worker_pids(self) -> set[int]:
        """Every living process that was started with this pool manager's settings, without itself."""
        own = self.process.pid if self.process is not None else 0
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        parents = {own, os.getpid()}
        return {pid for pid in pids if pid != own and self._is_its_mark_on(pid, parents) and identify(pid) is not None}

    def _is_its_mark_on(self, pid: int, parents: Container[int]) -> bool:
        """A process that begins its exec between two looks has the variables of its parent at the first, none in the
        midst of it, and its own at the last.
        """
        for _ in range(_MOMENTS):
            if has_variable(pid, _MARK, str(self.config)):
                return True
            if not is_just_started(pid, parents):
                break
            time.sleep(_MOMENT_S)
        return has_variable(pid, _MARK, str(self.config))

    async def wait_no_worker(self, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while self.worker_pids():
                await asyncio.sleep(_POLL_S)

    def log_of(self, worker_id: str) -> str:
        return (self.folder / "data" / "logs" / f"{worker_id}.log").read_text()


@asynccontextmanager
async def pool_manager_process(
    folder: Path, orchestrator: str, *, sim: Mapping[str, object] | None = None, **flags: object
) -> AsyncIterator[PoolManagerProcess]:
    """Not started yet. At the end it and all workers are killed."""
    manager = PoolManagerProcess(folder, orchestrator, sim or {}, flags=flags)
    try:
        yield manager
    finally:
        await manager.end()
        pids = manager.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        reap(pids)


def is_just_started(pid: int, parents: Container[int]) -> bool:
    """Whether it is in the midst of its exec, where a process has no variables by which it could be found."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        return int(parent) in parents and state != "Z" and not Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def reap(pids: Iterable[int]) -> None:
    """Workers whose pool manager was killed are ours (see `leaks.adopt_orphans`): zombies until they are asked for.

    These, and no others: who waits for another process that has ended would not hear of it.
    """
    for pid in pids:
        with suppress(ChildProcessError):  # a process of a worker, which its worker has asked for
            os.waitpid(pid, 0)
