"""Processes that this one started, and processes that it only took over."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pool_managerd.workers.adopted_process import AdoptedProcess, find_living
from pool_managerd.workers.command import ACCESS_TOKEN_VARIABLE
from pool_managerd.workers.identity import age_s, find_by_environment, has_variable, identify
from pool_managerd.workers.journal import Stage, WorkerRecord
from pool_managerd.workers.process import ChildProcess, ProcessEnd
from support.worker_host import eventually

SECRET = "a secret of this test"
WAITS = "input()"

Started = subprocess.Popen[bytes]
Start = Callable[[str], Awaitable[tuple[Started, AdoptedProcess]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """A process that this one is the parent of, and the way in which a restarted pool manager holds it."""
    async with AsyncExitStack() as started:

        async def start(code: str) -> tuple[Started, AdoptedProcess]:
            process = subprocess.Popen(  # noqa: ASYNC220  # done at once
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.PIPE,
                env={ACCESS_TOKEN_VARIABLE: SECRET},
                start_new_session=True,
            )
            started.push_async_callback(asyncio.to_thread, process.communicate)
            await eventually(lambda: has_variable(process.pid, ACCESS_TOKEN_VARIABLE, SECRET))
            record = WorkerRecord("w", Stage.STARTED, access_token=SECRET, process=identify(process.pid))
            held = await find_living(record)
            assert held is not None
            started.callback(held.abandon)
            return process, held

        yield start


@pytest.mark.req("POOL-2004", "POOL-2005")
async def test_how_an_adopted_process_ended_is_seen_before_its_parent_looks(start: Start) -> None:
    process, held = await start(WAITS)
    os.kill(process.pid, signal.SIGSEGV)
    assert await held.wait() == ProcessEnd(signal=signal.SIGSEGV)


@pytest.mark.req("POOL-2004", "POOL-2005")
async def test_an_exit_code_of_an_adopted_process_is_seen_too(start: Start) -> None:
    process, held = await start(f"{WAITS}; raise SystemExit(7)")
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert await held.wait() == ProcessEnd(exit_code=7)


@pytest.mark.req("POOL-2005")
async def test_how_an_adopted_process_ended_is_known_after_its_parent_looked_where_the_kernel_tells(
    start: Start,
) -> None:
    process, held = await start(WAITS)
    process.kill()
    process.wait()  # before our loop has a chance to see anything
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    known = ProcessEnd(signal=signal.SIGKILL) if release >= (6, 15) else ProcessEnd()
    assert await held.wait() == known


async def test_a_signal_to_an_adopted_process_that_has_ended_reaches_no_process(start: Start) -> None:
    process, held = await start(WAITS)
    process.kill()
    process.wait()  # see above
    held.terminate()
    await held.wait()
    held.kill()


async def test_an_adopted_process_can_be_left_alone_again(start: Start) -> None:
    process, held = await start(WAITS)
    held.abandon()
    assert process.poll() is None


async def test_a_process_is_as_old_as_it_is(start: Start) -> None:
    _, held = await start(WAITS)
    assert 0 <= held.age_s < 10
    own = identify(os.getpid())
    assert own is not None
    assert age_s(own) > held.age_s


async def test_the_environment_of_a_child_of_a_worker_is_not_the_worker() -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{WAITS}']).wait()"
    environment = {"FAMILY": "this one"}
    command = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True) as worker:  # noqa: ASYNC220
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        await eventually(lambda: bool(children.read_text()))
        child = int(children.read_text())  # noqa: ASYNC240  # no disk is behind it
        await eventually(lambda: has_variable(child, "FAMILY", "this one"))
        assert find_by_environment("FAMILY", "this one") == identify(worker.pid)
        worker.kill()
        assert worker.stdin is not None
        worker.stdin.close()
    await eventually(lambda: identify(child) is None)
    assert find_by_environment("FAMILY", "this one") is None


async def test_a_child_process_that_is_left_alone_goes_on(tmp_path: Path) -> None:
    child = ChildProcess.spawn([sys.executable, "-c", "import time; time.sleep(60)"], {}, tmp_path / "log")
    child.abandon()
    assert identify(child.pid) is not None
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)  # noqa: ASYNC222  # it is gone
