"""A process is found, or waited for, from the moment on in which it is started."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.pool_manager_process import is_just_started

US = {os.getpid()}


@contextmanager
def child(variables: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """It runs: it has answered."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, bufsize=0, env=variables) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdout.read(1)
        yield process
        process.kill()


def test_a_process_that_runs_or_ended_is_not_just_started() -> None:
    with child() as process:
        assert not is_just_started(process.pid, US)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_just_started(process.pid, US), "a zombie"
    assert not is_just_started(process.pid, US), "gone"


def test_a_child_without_variables_counts_as_just_started_and_a_strangers_does_not() -> None:
    with child({}) as process:
        assert Path(f"/proc/{process.pid}/environ").read_bytes() == b""
        assert is_just_started(process.pid, US)
        assert not is_just_started(process.pid, set())
