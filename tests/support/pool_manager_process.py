"""The pool manager as a process that can be killed and started again, with simulated GPUs and workers."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llama_orch.v2 import node_link_pb2
from llama_orch.v2 import pool_manager_service_pb2 as pb
from llama_orch.v2.pool_manager_service_pb2_grpc import PoolManagerServiceStub
from llorch.errors import LlorchError
from llorch.ports import free_port
from llorch.rpc.client import call, open_channel
from pool_managerd.workers.identity import has_variable, identify

ENDS_WITHIN_S = 10.0
SERVES_WITHIN_S = 20.0
_POLL_S = 0.01
_MARK = "LLORCH_CONFIG"


@dataclass
class PoolManagerProcess:
    """`start` and `kill` may come again and again; the address and the data directory stay the same.

    Its workers inherit a path of its own, so that they are found whatever process is their parent.
    """

    folder: Path
    orchestrator: str
    sim: Mapping[str, object] = field(default_factory=dict)
    flags: dict[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None

    def __post_init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.config = self.folder / "settings.toml"
        self.config.touch()

    async def start(self) -> None:
        """Returns at once; `state` tells when it serves."""
        given = {
            "config": self.config,
            "bind": self.address,
            "orchestrator": self.orchestrator,
            "node_id": "garage",
            "data_dir": self.folder / "data",
            "simulate_gpu": "RTX 3090:24GiB",
            "sim": json.dumps(self.sim),
            "worker_ports": "any",
            **self.flags,
        }
        arguments = [part for name, value in given.items() for part in _flag(name, value)]
        with (self.folder / "pool-managerd.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pool_managerd", *arguments),
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        async with asyncio.timeout(ENDS_WITHIN_S):
            return await self.process.wait()

    async def snapshot(self, within_s: float = SERVES_WITHIN_S) -> node_link_pb2.NodeSnapshot:
        """Its snapshot, once it serves."""
        async with asyncio.timeout(within_s), open_channel(self.address) as channel:
            stub = PoolManagerServiceStub(channel)
            while True:
                assert self.process is not None
                assert self.process.returncode is None, (self.folder / "pool-managerd.log").read_text()[-3000:]
                try:
                    answer = await call(stub.GetState, pb.PoolManagerServiceGetStateRequest(), timeout_s=2)
                except LlorchError:
                    await asyncio.sleep(_POLL_S)
                else:
                    return answer.snapshot

    def worker_pids(self) -> set[int]:
        """Every living process that was started with this pool manager's settings, without itself."""
        own = self.process.pid if self.process is not None else 0
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return {
            pid
            for pid in pids
            if pid != own and has_variable(pid, _MARK, str(self.config)) and identify(pid) is not None
        }

    async def wait_no_worker(self, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while self.worker_pids():
                await asyncio.sleep(_POLL_S)

    def log_of(self, worker_id: str) -> str:
        return (self.folder / "data" / "logs" / f"{worker_id}.log").read_text()


def _flag(name: str, value: object) -> tuple[str, ...]:
    """None leaves a flag out that is given otherwise."""
    if value is None:
        return ()
    flag = f"--{name.replace('_', '-')}"
    return (flag,) if value is True else (flag, str(value))


@asynccontextmanager
async def pool_manager_process(
    folder: Path, orchestrator: str, *, sim: Mapping[str, object] | None = None, **flags: object
) -> AsyncIterator[PoolManagerProcess]:
    """Not started yet. At the end it and all workers are killed."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  # a local folder, in a test
    manager = PoolManagerProcess(folder, orchestrator, sim or {}, flags)
    try:
        yield manager
    finally:
        if manager.process is not None and manager.process.returncode is None:
            await manager.kill()
        for pid in manager.worker_pids():
            os.kill(pid, signal.SIGKILL)
        reap_orphans()


def reap_orphans() -> None:
    """Workers whose pool manager was killed are ours (see `leaks.adopt_orphans`): zombies until they are asked for."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        os.waitpid(found.si_pid, 0)
