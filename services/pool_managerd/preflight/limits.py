"""Whether the system lets a pool manager and its workers have what they need."""

import resource
from collections.abc import Callable, Iterator

from pool_managerd.preflight.finding import Finding, ok, warning

# A pool manager has about five files open for each of a hundred workers; a worker one for each of its streams.
_FILES = 1024
_PROCESSES = 1000  # threads count as well: an engine starts one for each core, and gRPC some

Limits = Callable[[int], tuple[int, int]]


def find_limits(limits: Limits = resource.getrlimit) -> list[Finding]:
    """One finding per limit that is too low, or one that says that none is."""
    found = list(_too_low(limits))
    return found or [ok("limits", f"{_shown(limits(resource.RLIMIT_NOFILE)[0])} open files per process")]


def _too_low(limits: Limits) -> Iterator[Finding]:
    files, _ = limits(resource.RLIMIT_NOFILE)
    if _is_below(files, _FILES):
        yield warning(
            "limits",
            f"{files} open files per process; {_FILES} are needed for many workers and streams",
            f"ulimit -n {_FILES}, or LimitNOFILE= in the systemd unit",
        )
    processes, _ = limits(resource.RLIMIT_NPROC)
    if _is_below(processes, _PROCESSES):
        yield warning(
            "limits",
            f"{processes} processes and threads for this user; {_PROCESSES} are needed for a few workers",
            f"ulimit -u {_PROCESSES}, or TasksMax= and LimitNPROC= in the systemd unit",
        )
    if limits(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        yield warning(
            "limits", "address space is limited, which CUDA and mapped models do not fit into", "ulimit -v unlimited"
        )
    if limits(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        yield warning("limits", "the size of files is limited, which cuts downloads short", "ulimit -f unlimited")


def _is_below(limit: int, needed: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < needed


def _shown(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
