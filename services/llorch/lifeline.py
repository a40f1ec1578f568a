"""A process ends with the one that started it, however that one ends; the one that starts it asks for it in `VARIABLE`.

`llorch up` gives its daemons a pipe as stdin (`STDIN`). It never writes to the pipe, which closes when `llorch up` has
ended, also by SIGKILL; the daemon then ends in order. A program that may be stuck in native code, and has nothing to
put in order, is killed by the kernel instead (`with_parent`).
"""

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable, Mapping

VARIABLE = "LLORCH_LIFELINE"
STDIN = "stdin"
_PARENT = "parent"
_PR_SET_PDEATHSIG = 1


def watch(on_lost: Callable[[], None]) -> None:
    """Calls `on_lost` in the running loop once the lifeline is gone. Does nothing where there is none."""
    # Not inherited: a child's stdin is another one.
    if os.environ.pop(VARIABLE, None) != STDIN:
        return
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            on_lost()

    loop.add_reader(0, look)


def with_parent() -> Mapping[str, str]:
    """Environment of a child that is to end with this process, and calls `end_with_parent`.

    The kernel looks at the *thread* that starts the child: it has to be one that stays, such as the main thread.
    """
    return {VARIABLE: f"{_PARENT}:{os.getpid()}"}


def end_with_parent() -> None:
    """For the first line of a program. From here on this process is killed when the one that started it ends."""
    kind, _, parent = os.environ.pop(VARIABLE, "").partition(":")
    if kind != _PARENT:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it had ended before
        os._exit(0)
