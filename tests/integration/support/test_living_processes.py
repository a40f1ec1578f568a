"""The list of processes below another one: what ended is not in it, whether or not anyone asked for its status."""

import subprocess
import sys

import psutil

from support import leaks, living_processes

PARENT = """
import subprocess, sys
child = subprocess.Popen(["cat", "-u"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
child.stdin.write(b"runs")
child.stdout.read(1)
print(child.pid, flush=True)
sys.stdin.readline()
child.kill()
child.wait()
"""
"""A process has no command line in the midst of its start, so that the grandchild has to have answered."""


def commands() -> dict[int, list[str]]:
    return {process.pid: command for process, command in living_processes.below(psutil.Process())}


def test_a_grandchild_is_listed_with_its_command_line() -> None:
    program = [sys.executable, "-c", PARENT]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        grandchild = int(parent.stdout.readline())
        assert commands()[grandchild] == ["cat", "-u"]
        parent.communicate("\n")
    assert grandchild not in commands()


def test_a_child_that_ended_is_not_listed_and_keeps_its_status_for_who_waits() -> None:
    with subprocess.Popen(["sh", "-c", "exit 7"]) as child:
        assert not leaks.wait_until_none(lambda: leaks.child_processes() & {child.pid})
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        assert child.pid not in commands()
        assert child.wait() == 7
