"""What a test may not leave behind: asyncio tasks, child processes, file descriptors.

Every check waits a bounded time first, since ending takes a moment, and costs well under a millisecond
when there is nothing to find.
"""

import asyncio
import ctypes
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

GRACE_S = 2.0
POLL_S = 0.01
_PR_SET_CHILD_SUBREAPER = 36
# Made at first use and kept: by gRPC's poller, by event loops, by the C library's random source.
_KEPT_BY_LIBRARIES = ("anon_inode:", "/dev/")


def adopt_orphans() -> None:
    """Makes processes whose parent dies children of this one, instead of init's, so that they are seen here."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def child_processes() -> frozenset[int]:
    """Process ids of our living children; a zombie is no leak but a child that was not waited for yet."""
    pids = {pid for thread in Path("/proc/self/task").iterdir() for pid in _children_of(thread)}
    return frozenset(pid for pid in pids if not _is_zombie(pid))


def _children_of(thread: Path) -> list[int]:
    try:
        return [int(pid) for pid in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # the thread ended meanwhile; another one has its children now
        return []


def describe_processes(pids: Iterable[int]) -> list[str]:
    return [f"{pid}: {_command_line(pid)}" for pid in sorted(pids)]


def file_descriptors() -> Counter[str]:
    """What our open descriptors lead to, e.g. `socket:[123]` or a path."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if not target.startswith(_KEPT_BY_LIBRARIES):
            found[target] += 1
    return found


def new_file_descriptors(before: Counter[str]) -> Counter[str]:
    if not (left := file_descriptors() - before):
        return left
    gc.collect()  # an object without references is closed by its finalizer
    return file_descriptors() - before


def wait_until_none(leaked: Callable[[], Found]) -> Found:
    """What `leaked` still answers after the grace; falsy as soon as there is nothing."""
    deadline = time.monotonic() + GRACE_S
    while (left := leaked()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return left


async def tasks_left() -> list[str]:
    """Descriptions of the tasks of this loop, other than the one that asks, that do not end within the grace."""
    me = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not me]
    if others:
        _, pending = await asyncio.wait(others, timeout=GRACE_S)
        return sorted(repr(task) for task in pending)
    return []


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() or "(no command line)"
    except OSError:
        return "gone"
