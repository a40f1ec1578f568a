from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llorch.background import TaskSupervisor
from llorch.worker_state import WorkerState
from pool_managerd.workers.identity import identify
from support.worker_host import GGUF, Host


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(GGUF)
    return f"file:{path}"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with TaskSupervisor("test") as tasks:
        made = Host(tmp_path, tasks)
        yield made
        made.supervisor.kill_all()
        for status in made.supervisor.statuses():
            await made.wait_state(status.spec.worker_id, WorkerState.EXITED, WorkerState.FAILED)
    leaked = [status.pid for status in made.supervisor.statuses() if status.pid and identify(status.pid)]
    assert not leaked
