"""Whether a process is the one that was started, proven and not guessed: process ids are used again.

A process is known by its id, the clock tick at which it started, and the boot in which that tick counts. A
worker whose id was never recorded (the pool manager died between exec and its note) is known by the secret in
its environment, which nobody else has.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_START_TICKS_FIELD = 22  # in /proc/<pid>/stat, counted from 1; see proc(5)


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    pid: int
    start_ticks: int
    boot_id: str


def identify(pid: int) -> ProcessIdentity | None:
    """None where no such process lives; a zombie does not live."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = stat.rpartition(")")[2].split()  # the name may hold spaces and brackets; it ends at the last ")"
    if after_name[0] in ("Z", "X"):
        return None
    return ProcessIdentity(pid, int(after_name[_START_TICKS_FIELD - 3]), boot_id())


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def is_alive(identity: ProcessIdentity) -> bool:
    return identify(identity.pid) == identity


def signal_proven(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Sends the signal to exactly this process, never to a later one with its id. False: it is gone.

    The descriptor is bound to whoever has the id now; after that, the id can't change hands unnoticed.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def find_by_environment(name: str, value: str) -> ProcessIdentity | None:
    """The process of this user that was started with this variable; reads every environment, so ask rarely."""
    wanted = f"{name}={value}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # another user's process, or one that ended meanwhile
        if wanted in variables:
            return identify(int(entry.name))
    return None
