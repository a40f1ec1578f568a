"""Daemons as processes, with small programs in their place."""

import asyncio
import json
import os
import signal
import sys
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llorch import lifeline
from llorch.system.daemon import Daemon, DaemonFailed
from llorch.system.family import Family
from llorch.system.plan import DaemonPlan

Program = Callable[[str], DaemonPlan]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """A plan whose daemon is the given Python code."""

    def program(code: str) -> DaemonPlan:
        command = [sys.executable, "-c", textwrap.dedent(code)]
        monkeypatch.setattr(DaemonPlan, "command", property(lambda _: command))
        return DaemonPlan("gatewayd", "gateway", (), "--http")

    return program


async def test_it_serves_once_its_address_is_told(program: Program, tmp_path: Path) -> None:
    code = """
        import os, sys, time
        with open(sys.argv[-1] + ".new", "w") as file:
            file.write("127.0.0.1:4711\\n")
        os.replace(sys.argv[-1] + ".new", sys.argv[-1])  # as daemons write it: never half
        time.sleep(60)
    """
    daemon = await Daemon.spawn(program(code), os.environ, tmp_path)

    assert await daemon.wait_serving(10.0) == "127.0.0.1:4711"
    daemon.terminate()
    assert (await daemon.wait_ended()).exit_code == -signal.SIGTERM


async def test_an_address_of_an_earlier_run_does_not_count(program: Program, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "gatewayd.address").write_text("127.0.0.1:1\n")
    daemon = await Daemon.spawn(program("raise SystemExit(3)"), os.environ, tmp_path)

    with pytest.raises(DaemonFailed, match="gatewayd ended with exit code 3"):
        await daemon.wait_serving(10.0)


async def test_its_refusal_is_passed_on_with_the_option_that_a_user_knows(program: Program, tmp_path: Path) -> None:
    code = 'raise SystemExit("gatewayd: port 8080 is taken; use --bind 127.0.0.1:8081")'
    daemon = await Daemon.spawn(program(code), os.environ, tmp_path)

    with pytest.raises(DaemonFailed) as failed:
        await daemon.wait_serving(10.0)
    assert failed.value.message == "port 8080 is taken; use --http 127.0.0.1:8081"


async def test_a_log_of_an_earlier_run_is_not_mistaken_for_this_one(program: Program, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gatewayd.log").write_text("gatewayd: an old refusal\n")
    daemon = await Daemon.spawn(program("import os; os.abort()"), os.environ, tmp_path)

    failed = await daemon.wait_ended()
    assert failed.message == "gatewayd ended by SIGABRT"
    assert failed.last_lines == ()


async def test_its_last_lines_are_readable(program: Program, tmp_path: Path) -> None:
    line = json.dumps({"timestamp": "12:00", "level": "error", "event": "it_broke", "service": "gatewayd", "port": 1})
    daemon = await Daemon.spawn(program(f"print({line!r}); print('plain'); print('[1]')"), os.environ, tmp_path)

    assert (await daemon.wait_ended()).last_lines == ("12:00 error it_broke port=1", "plain", "[1]")


async def test_one_that_does_not_come_up_in_time_is_told(program: Program, tmp_path: Path) -> None:
    daemon = await Daemon.spawn(program("import time; time.sleep(60)"), os.environ, tmp_path)

    with pytest.raises(DaemonFailed, match="does not serve after") as failed:
        await daemon.wait_serving(0.05)
    assert failed.value.exit_code is None
    daemon.kill()
    await daemon.wait_ended()


async def test_a_process_whose_parent_died_stays_in_the_family(tmp_path: Path) -> None:
    family = Family()
    code = """
        import subprocess, sys
        ignoring = "from signal import *; import time; signal(SIGTERM, SIG_IGN); print(flush=True); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", ignoring], stdout=subprocess.PIPE, start_new_session=True)
        child.stdout.readline()
        print(child.pid, flush=True)
    """
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(code), stdout=PIPE)
    out, _ = await parent.communicate()

    assert [process.pid for process in family.members()] == [int(out)]
    await asyncio.to_thread(family.end, 0.05)
    assert not psutil.pid_exists(int(out))


async def test_the_ends_of_orphans_are_taken_note_of_and_those_of_others_left_to_them() -> None:
    family = Family()
    code = """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE).pid, flush=True)
    """
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(code), stdout=PIPE)
    out, _ = await parent.communicate()
    orphan = psutil.Process(int(out))  # its input ended with its parent

    async with asyncio.timeout(10):
        while orphan.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    family.collect_orphans({orphan.pid})
    assert psutil.pid_exists(orphan.pid)
    family.collect_orphans(())
    assert not psutil.pid_exists(orphan.pid)


async def test_processes_from_before_are_not_in_the_family() -> None:
    older = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE)
    try:
        assert Family().members() == []
    finally:
        await older.communicate(b"\n")


async def test_a_daemon_notices_when_its_lifeline_is_gone() -> None:
    code = """
        import asyncio
        from llorch import lifeline

        async def main():
            lost = asyncio.Event()
            lifeline.watch(lost.set)
            print("watching", flush=True)
            await lost.wait()

        asyncio.run(main())
    """
    environment = {**os.environ, lifeline.VARIABLE: lifeline.STDIN}
    command = (sys.executable, "-c", textwrap.dedent(code))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"watching\n"

    process.stdin.close()

    async with asyncio.timeout(5):
        assert await process.wait() == 0
