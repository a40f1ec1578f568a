"""How a model's files came from the disk. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """`cached_bytes` were in memory before; `bytes_per_s` is the disk's speed for the rest, None where that was too
    little to tell.
    """

    file_bytes: int
    cached_bytes: int
    seconds: float
    bytes_per_s: float | None
