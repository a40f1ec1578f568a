"""Ports on which a daemon of a test listens a moment later.

One that the kernel gives for port 0 may be given again before the daemon is there, which then ends: where systems of
several daemons start side by side that happens. These lie below those that the kernel gives, and each of pytest's
processes has its own.
"""

import itertools
import os

from llorch.ports import is_free

_FIRST = 10_000
_EACH = 2_500
"""Of each process; Linux gives ports from 32,768 on."""
_PROCESSES = 8

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
# Those of a run that has just ended may not be free for a minute.
_numbers = itertools.count(os.getpid())


def free_port() -> int:
    """Of loopback; the next time it is another one."""
    for _ in range(_EACH):
        port = _FIRST + _worker * _EACH + next(_numbers) % _EACH
        if is_free("127.0.0.1", port):
            return port
    raise AssertionError(f"none of {_EACH} ports is free")
