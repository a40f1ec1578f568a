"""Whether a process is the one that was started, proven and not guessed: process ids are used again.

A process is known by its id, the clock tick at which it started, and the boot in which that tick counts. A worker is
known by the secret in its environment as well, which no other process has: it decides about a process of an earlier
instance, and finds one whose id was never recorded (the pool manager died between exec and its note).
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_START_TICKS_FIELD = 22  # in /proc/<pid>/stat, counted from 1; see proc(5)
_EXIT_STATUS_FIELD = 52
_ENDED = ("Z", "X")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    pid: int
    start_ticks: int
    boot_id: str

    def to_json(self) -> dict[str, Any]:
        """These names stay: they are on the disk."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ProcessIdentity":
        return cls(pid=fields["pid"], start_ticks=fields["start_ticks"], boot_id=fields["boot_id"])


def identify(pid: int) -> ProcessIdentity | None:
    """None where no such process lives; a zombie does not live."""
    fields = _stat(pid)
    if fields is None or fields[0] in _ENDED:
        return None
    return ProcessIdentity(pid, int(fields[_START_TICKS_FIELD - 3]), boot_id())


def exit_status_of_zombie(identity: ProcessIdentity) -> int | None:
    """As wait(2) tells it to the parent, which has not asked yet; None where it has, or the process lives."""
    fields = _stat(identity.pid)
    if fields is None or fields[0] not in _ENDED or int(fields[_START_TICKS_FIELD - 3]) != identity.start_ticks:
        return None
    return int(fields[_EXIT_STATUS_FIELD - 3])


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third on, which is the state."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()  # the name may hold spaces and brackets; it ends at the last ")"


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def is_alive(identity: ProcessIdentity) -> bool:
    return identify(identity.pid) == identity


def age_s(identity: ProcessIdentity) -> float:
    """Seconds since it started; sleep of the machine counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_ticks / os.sysconf("SC_CLK_TCK")


def has_variable(pid: int, name: str, value: str) -> bool:
    """Whether the process was started with this environment variable; False where that can't be seen."""
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # another user's process, or one that ended meanwhile
    return f"{name}={value}".encode() in variables


def find_by_environment(name: str, value: str) -> ProcessIdentity | None:
    """The process of this user that was started with this variable; reads every environment, so ask rarely.

    Its children have the variable too; unlike them it leads a session.
    """
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and has_variable(int(entry.name), name, value) and _leads_session(int(entry.name)):
            return identify(int(entry.name))
    return None


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False
