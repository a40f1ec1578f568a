"""How often chaos tests do what they do.

LLORCH_CHAOS says it: `full` in `make chaos`, 10 in `make chaos-long`; the suite takes 0.1, where it is not set.
"""

import os

_WANTED = os.environ.get("LLORCH_CHAOS", "0.1")
_SHARE = 1.0 if _WANTED == "full" else float(_WANTED)
IS_FULL = _SHARE >= 1


def of(full: int) -> int:
    """All of it by `make chaos`, ten times that by `make chaos-long`, a tenth in the suite."""
    return max(1, round(full * _SHARE))


def up_to(full: int) -> int:
    """Never more than the full count, where that is what a bar is for, or what there is room for."""
    return min(full, of(full))


def of_long(full: int) -> int:
    """For what half an hour of `make chaos` has no time for: all of it by `make chaos-long`, a tenth otherwise."""
    return max(1, round(full * (max(0.1, _SHARE / 10) if IS_FULL else _SHARE)))


def within(seconds: float) -> float:
    """A guard against hanging, long enough for the full count; ten times that by `make chaos-long`."""
    return seconds * max(1.0, _SHARE)
