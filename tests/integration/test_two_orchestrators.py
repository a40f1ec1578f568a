"""Two orchestrators on one data directory: the second one refuses, and starts once the first is gone, however."""

import asyncio
import signal
from pathlib import Path

import pytest

from support.daemon_process import ENDS_WITHIN_S
from support.orchestrator_process import OrchestratorProcess


@pytest.mark.req("ORCH-1009")
async def test_the_second_one_refuses_with_the_directory_and_the_process_of_the_first(tmp_path: Path) -> None:
    first = OrchestratorProcess(tmp_path / "first")
    data = first.folder / "data"
    second = OrchestratorProcess(tmp_path / "second", flags={"data_dir": data})
    try:
        await first.start()
        await first.wait_serving()
        await second.start()
        assert first.process is not None
        assert second.process is not None
        async with asyncio.timeout(ENDS_WITHIN_S):
            assert await second.process.wait() == 1
        assert second.log() == (
            f"orchestratord: another orchestrator (process {first.process.pid}) runs with the data directory {data}; "
            "end it, or give this one a directory of its own with --data-dir\n"
        )
        await first.wait_serving()
        first.send(signal.SIGKILL)
        await first.process.wait()
        await second.start()
        await second.wait_serving()
    finally:
        await first.end()
        await second.end()
