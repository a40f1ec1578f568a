"""How many threads compute."""

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores(topology: Path = _TOPOLOGY) -> int:
    """Physical cores that this process may use; hyper-threads share one and do not make llama.cpp faster."""
    cores = {core_of(cpu, topology) for cpu in os.sched_getaffinity(0)}
    return max(1, len(cores))


def core_of(cpu: int, topology: Path = _TOPOLOGY) -> str:
    """A name for the physical core that a CPU is a thread of."""
    try:
        return (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)  # some containers hide the topology: every CPU counts as a core
