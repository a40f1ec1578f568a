"""Process ids are used again: a process with the id of a former worker is never touched, however alike it looks.

Fifty traps, a tenth of them in the suite. Each is a foreign process that would say so if it got a signal.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import worker_pb2
from pool_managerd.workers.command import ACCESS_TOKEN_VARIABLE
from pool_managerd.workers.identity import ProcessIdentity, identify
from support import chaos_count
from support.orchestrator_stub import OrchestratorStub, serving
from support.pool_manager_commands import commanding
from support.pool_manager_process import PoolManagerProcess, pool_manager_process
from support.whole_system import gguf, wait_until

pytestmark = pytest.mark.req("POOL-2005")

TRAPS = chaos_count.of(50)
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")

# Listens, answers no caller, and ends with an exit code of its own at any signal that it can catch.
FOREIGN = """
import os, signal, socket, sys
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, lambda number, frame: os._exit(100 + number))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Foreign:
    process: Process
    identity: ProcessIdentity
    address: str


@dataclass(frozen=True)
class Trap:
    """`secret`: what the foreign process has in its environment where a worker has its own; "{}" is that of the dead
    worker. `record`: what the note of that one says.
    """

    name: str
    secret: str
    record: Callable[[Foreign], dict[str, Any]]
    same_session: bool = False


def noted(foreign: Foreign, **changes: object) -> dict[str, object]:
    return {**asdict(foreign.identity), **changes}


KINDS = (
    Trap("another start", "", lambda it: {"process": noted(it, start_ticks=it.identity.start_ticks - 1)}),
    Trap("another boot", "", lambda it: {"process": noted(it, boot_id="0")}),
    Trap("everything but the secret", "", lambda it: {"process": noted(it)}),
    Trap("another secret", "{}x", lambda it: {"process": noted(it)}),
    Trap("the secret, another start", "{}", lambda it: {"process": noted(it, start_ticks=1)}),
    Trap("listens at its address", "", lambda it: {"process": noted(it), "address": it.address}),
    Trap("being stopped", "", lambda it: {"process": noted(it), "stage": "stopping"}),
    Trap(
        "a child of a worker whose id was not noted",
        "{}",
        lambda it: {"process": None, "stage": "intended"},
        same_session=True,
    ),
)


@asynccontextmanager
async def foreign_process(trap: Trap, secret: str) -> AsyncIterator[Foreign]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", FOREIGN),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env={ACCESS_TOKEN_VARIABLE: trap.secret.format(secret)},
        start_new_session=not trap.same_session,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        identity = identify(process.pid)
        assert identity is not None
        yield Foreign(process, identity, f"127.0.0.1:{port}")
        assert process.returncode is None, f"{trap.name}: signal {process.returncode} reached a foreign process"
    finally:
        await process.communicate(b"")
    assert process.returncode == 0, f"{trap.name}: signal {process.returncode} reached a foreign process"


def plant(manager: PoolManagerProcess, worker_id: str, secret: str, source: str, fields: Mapping[str, object]) -> None:
    """The note of a worker that an earlier life of the pool manager started."""
    folder = manager.folder / "data" / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "worker_id": worker_id,
        "stage": "started",
        "spec": {
            "worker_id": worker_id,
            "model": "tiny",
            "source": source,
            "device_ids": ["sim-0"],
            "slots": 1,
            "context_per_slot": 1024,
            "cache_type_k": "f16",
            "cache_type_v": "f16",
            "tensor_split": [],
            "reservation_mib": [1],
        },
        "access_token": secret,
        "ready_token": f"ready-{worker_id}",
        "process": None,
        "address": "",
        "load_deadline_s": 300.0,
        "stall_s": 30.0,
        "start_time": "2026-01-01T00:00:00+00:00",
        "ready_time": "2026-01-01T00:00:01+00:00",
        **fields,
    }
    (folder / f"{worker_id}.json").write_text(json.dumps(record))


async def run_over(manager: PoolManagerProcess, trapped: set[str], source: str) -> None:
    """A life of the pool manager: it tells of these, starts a worker of its own, and ends with all that is its own."""
    await manager.start()
    workers = {worker.worker.spec.worker_id: worker.worker for worker in (await manager.snapshot()).workers}
    assert workers.keys() == trapped
    assert {worker.state for worker in workers.values()} <= {
        worker_pb2.WORKER_STATE_FAILED,
        worker_pb2.WORKER_STATE_EXITED,
    }
    async with commanding(manager.address) as commands:
        await commands.start(source, "own")
        for worker_id in trapped:
            await commands.stop(worker_id)
    assert await manager.terminate() == 0
    await manager.wait_no_worker(within_s=5)


async def test_no_foreign_process_is_touched_that_has_the_id_of_a_worker_now(tmp_path: Path) -> None:
    orchestrator = OrchestratorStub()
    orchestrator.acknowledges = False
    source = f"file:{gguf(tmp_path)}"
    async with (
        serving(orchestrator) as address,
        pool_manager_process(tmp_path / "pool", address, stop_workers_on_exit=True) as manager,
    ):
        traps = list(islice(cycle(KINDS), max(TRAPS, len(KINDS))))
        async with AsyncExitStack() as set_traps:
            for number, trap in enumerate(traps):
                secret = f"secret-{number}"
                foreign = await set_traps.enter_async_context(foreign_process(trap, secret))
                plant(manager, f"w-{number}", secret, source, trap.record(foreign))
            told_of = {f"w-{number}" for number, trap in enumerate(traps) if not trap.same_session}
            await run_over(manager, told_of, source)


async def test_a_process_id_that_the_kernel_really_gave_out_again_is_not_touched(tmp_path: Path) -> None:
    """A user that may set the kernel's counter of ids can start a process with the id of the worker."""
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("only root may choose process ids")
    orchestrator = OrchestratorStub()
    async with (
        serving(orchestrator) as address,
        pool_manager_process(tmp_path / "pool", address) as manager,
    ):
        await manager.start()
        await manager.snapshot()
        async with commanding(manager.address) as commands:
            await commands.start(f"file:{gguf(tmp_path)}", "w-1")
            report = await orchestrator.wait_report(lambda report: any_pid(report) > 0)
        pid = any_pid(report)
        await wait_until(lambda: is_recorded(manager, "w-1", pid))  # which may come after it was told
        await manager.kill()
        os.kill(pid, 9)
        await asyncio.to_thread(os.waitpid, pid, 0)  # it came to us when its parent died
        async with foreign_process_with(pid) as foreign:
            assert foreign.identity.pid == pid
            assert await is_recorded(manager, "w-1", pid)
            orchestrator.acknowledges = False  # or the end of it would be forgotten as soon as it is told
            await manager.start()
            (worker,) = (await manager.snapshot()).workers
            assert worker.worker.state == worker_pb2.WORKER_STATE_FAILED


async def is_recorded(manager: PoolManagerProcess, worker_id: str, pid: int) -> bool:
    record = json.loads((manager.folder / "data" / "workers" / f"{worker_id}.json").read_text())
    return bool(record["process"] and record["process"]["pid"] == pid)


def any_pid(report: Any) -> int:
    snapshot = report.register.snapshot if report.HasField("register") else report.heartbeat.snapshot
    return max((worker.worker.pid for worker in snapshot.workers), default=0)


@asynccontextmanager
async def foreign_process_with(pid: int) -> AsyncIterator[Foreign]:
    """Others take ids as well, so it may take a few tries."""
    for _ in range(100):
        LAST_PID.write_text(str(pid - 1))  # noqa: ASYNC240  # no disk is behind it
        async with foreign_process(Trap("a reused id", "", lambda _: {}), "") as foreign:
            if foreign.identity.pid == pid:
                yield foreign
                return
    pytest.skip(f"the id {pid} could not be had again")
