"""Where workers of this host leave the KV caches of sessions for each other, and what is told of them. Pure."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SavedState:
    """What is told of them. Sizes in MiB, rounded up; a budget of 0: none is saved."""

    sequences: int = 0
    size_mib: int = 0
    budget_mib: int = 0


@dataclass(frozen=True, slots=True)
class SavedPlace:
    """What a worker is told. `key`, in hexadecimal, proves what a worker of this host wrote."""

    folder: Path
    budget_mib: int
    key: str = field(repr=False)
