"""A daemon as its user sees it: a process that is started, signalled, and leaves an exit code and a line."""

import signal
import subprocess
import sys

import pytest

PRELUDE = """
import asyncio
from llorch import errors
from llorch.errors import Reason
from llorch.ports import PortTaken
from llorch.run_daemon import run
"""


def start(main: str) -> "subprocess.Popen[str]":
    script = f"{PRELUDE}\nasync def main(stop):\n    {main}\n\nrun(main, 'testd')"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = process.communicate(timeout=20)
    return process.returncode, err


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        ("errors.Unavailable(Reason.STORE_FAILED, 'the disk is full')", 1, "testd: the disk is full"),
        ("errors.invalid_field('bind', 'no')", 2, "testd: bind: no"),
        ("errors.FailedPrecondition(Reason.TOKEN_MISSING, 'no token')", 2, "testd: no token"),
        ("ExceptionGroup('g', [ExceptionGroup('h', [OSError(), errors.invalid_field('a', 'b')])])", 2, "testd: a: b"),
    ],
)
def test_an_error_for_people_is_one_line_and_an_exit_code(raised: str, code: int, line: str) -> None:
    assert finish(start(f"raise {raised}")) == (code, f"{line}\n")


def test_any_other_error_is_one_line_of_the_log() -> None:
    code, err = finish(start("raise KeyError('x')"))
    assert code == 1
    assert len(err.splitlines()) == 1
    assert '"event": "daemon_failed"' in err


def test_the_end_of_main_is_the_end_of_the_daemon() -> None:
    assert finish(start("pass")) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number: signal.Signals) -> None:
    process = start("print('up', flush=True); await stop.wait()")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert finish(process) == (0, "")


def test_the_second_signal_cancels_and_the_third_ends_it() -> None:
    process = start(
        """
    try:
        print('up', flush=True); await stop.wait()
        print('draining', flush=True); await asyncio.Event().wait()
    finally:
        print('cancelled', flush=True); await asyncio.Event().wait()
"""
    )
    assert process.stdout is not None
    for line in ("up", "draining", "cancelled"):
        assert process.stdout.readline() == f"{line}\n"
        process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "")


def test_threads_that_are_stuck_do_not_keep_it_from_ending() -> None:
    """As those are that wait for a disk: the loop and the interpreter would wait for them."""
    process = start("import time; asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)")
    code, err = finish(process)
    assert code == 0
    assert '"event": "threads_did_not_end"' in err


def test_what_was_written_is_there_though_the_interpreter_is_left_at_once() -> None:
    process = start("print('x' * 300_000, end='')")
    out, _ = process.communicate(timeout=20)
    assert (len(out), process.returncode) == (300_000, 0)
