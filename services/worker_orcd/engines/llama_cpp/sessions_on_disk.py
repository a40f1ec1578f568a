"""Where the sequences of sessions are between two workers."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SessionsOnDisk:
    """`key` proves that a worker of this host's pool manager wrote what is in `folder`: 32 bytes. All workers of the
    host together take at most `budget_bytes`.
    """

    folder: Path
    key: bytes = field(repr=False)
    budget_bytes: int
