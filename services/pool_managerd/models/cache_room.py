"""Which downloaded models have to go so that another one has room. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from llorch.errors import LlorchError, Reason, ResourceExhausted

_MIB = 2**20
LEFT_FREE_BYTES = 1024 * _MIB
"""Stays free on the disk whatever the budget: logs and records have to be written."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A downloaded model. `files` are digests with sizes in bytes; two models may share some."""

    reference: str
    used_at: float
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """In bytes. `budget` is for all downloads together, None = as much as the disk has."""

    free: int
    budget: int | None
    parts: int = 0


def make_room(needed: int, kept: Iterable[Kept], disk: Disk, in_use: Collection[str]) -> list[str]:
    """References of the models that go, least recently used first. Raises `ResourceExhausted` where all of them would
    not be enough, and then none should go.
    """
    left = sorted(kept, key=lambda model: (model.used_at, model.reference))
    missing = _missing(needed, left, disk)
    before = _size(left)
    gone: list[str] = []
    for candidate in [model for model in left if model.reference not in in_use]:
        if before - _size(left) >= missing:
            break
        left.remove(candidate)
        gone.append(candidate.reference)
    if before - _size(left) < missing:
        raise _no_room(needed, disk, before, in_use)
    return gone


def _missing(needed: int, kept: Iterable[Kept], disk: Disk) -> int:
    short_of_disk = needed + LEFT_FREE_BYTES - disk.free
    over_budget = 0 if disk.budget is None else _size(kept) + disk.parts + needed - disk.budget
    return max(short_of_disk, over_budget, 0)


def _size(kept: Iterable[Kept]) -> int:
    """What files of several models take, they take once."""
    return sum(dict(file for model in kept for file in model.files).values())


def _no_room(needed: int, disk: Disk, kept: int, in_use: Collection[str]) -> LlorchError:
    budget = "" if disk.budget is None else f", `model_cache_mib` of this node allows {disk.budget // _MIB} MiB"
    used = f"; {len(in_use)} loaded model(s) stay" if in_use else ""
    return ResourceExhausted(
        Reason.STORE_FAILED,
        f"no room for {-(-needed // _MIB)} MiB more: downloads take {(kept + disk.parts) // _MIB} MiB, the disk has "
        f"{disk.free // _MIB} MiB free of which {LEFT_FREE_BYTES // _MIB} MiB stay free{budget}{used}",
    )
