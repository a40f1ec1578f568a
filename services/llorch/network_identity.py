"""Which network the addresses of loopback that this process sees belong to."""

import hashlib
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


def network_id() -> str:
    """The same for all processes that reach each other by loopback, and for no others: containers, and other machines
    with the same home, have their own. Raises OSError.
    """
    facts = f"{_BOOT_ID.read_text().strip()} {_NETWORK.stat().st_ino}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
