"""The leak checks themselves: a check that can't fail would be worse than none."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support import leaks

ORPHAN_MAKER = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3).pid)"


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(leaks, "GRACE_S", 0.05)
        yield


def test_an_open_socket_is_found_and_a_closed_one_is_not() -> None:
    before = leaks.file_descriptors()
    with socket.socket():
        assert leaks.wait_until_none(lambda: leaks.new_file_descriptors(before))
    assert not leaks.wait_until_none(lambda: leaks.new_file_descriptors(before))


def test_a_child_is_found_until_it_is_dead() -> None:
    before = leaks.child_processes()
    with subprocess.Popen(["sleep", "60"]) as child:
        assert leaks.wait_until_none(lambda: leaks.child_processes() - before) == {child.pid}
        assert leaks.describe_processes([child.pid]) == [f"{child.pid}: sleep 60"]
        child.kill()
    assert not leaks.child_processes() - before


def test_an_orphan_of_a_dead_child_is_found() -> None:
    before = leaks.child_processes()
    made = subprocess.run([sys.executable, "-c", ORPHAN_MAKER], check=True, capture_output=True, text=True)
    orphan = int(made.stdout)
    try:
        assert leaks.child_processes() - before == {orphan}
    finally:
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)


async def test_a_task_that_goes_on_is_found() -> None:
    task = asyncio.create_task(asyncio.Event().wait(), name="stubborn")
    assert [name for name in await leaks.tasks_left() if "stubborn" in name]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not await leaks.tasks_left()
