"""Every process that descends from this one, also where its parent has died."""

import ctypes
import os
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_KILL_FOR_S = 2.0
_POLL_S = 0.01


class Family:
    """The processes that descend from this one and were started since this was made.

    Workers lead sessions of their own and outlive a pool manager that is killed; as the subreaper this process
    then becomes their parent, so that they stay in the family.
    """

    def __init__(self) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
        self._before = frozenset(psutil.Process().children(recursive=True))

    def members(self) -> list[psutil.Process]:
        """The living ones. Reaps the others."""
        found = set(psutil.Process().children(recursive=True)) - self._before
        return [process for process in found if not _is_over(process)]

    def collect_orphans(self, not_these: Collection[int]) -> None:
        """Reaps workers that ended after their pool manager had died; cheap where there are none.

        `not_these` are processes that other code waits for.
        """
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in not_these:
                    return
                os.waitpid(found.si_pid, 0)

    def end(self, grace_s: float) -> None:
        """Terminates all, kills those that are left after `grace_s`, and returns when none is left."""
        members = self.members()
        for process in members:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(members, timeout=grace_s)
        self.kill()

    def kill(self) -> None:
        """Kills all, also what is started or orphaned meanwhile. Needs no event loop."""
        deadline = time.monotonic() + _KILL_FOR_S
        while (members := self.members()) and time.monotonic() < deadline:
            for process in members:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(_POLL_S)


def _is_over(process: psutil.Process) -> bool:
    """Whether it has ended; collects the end of an orphan that came to this process."""
    with suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
        if process.ppid() == os.getpid():
            process.wait(timeout=0)
    return True
