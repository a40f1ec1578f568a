"""How often chaos tests do what they do.

A tenth of the full count in the suite, all of it by `make chaos`, which ends within half an hour, and ten times that by
`make chaos-long`.
"""

import os

_WANTED = os.environ.get("LLORCH_CHAOS", "0.1")
_SHARE = 1.0 if _WANTED == "full" else float(_WANTED)
IS_FULL = _SHARE >= 1


def of(full: int) -> int:
    """LLORCH_CHAOS=full asks for all of it; a number there is the share, 0.1 by default."""
    return max(1, round(full * _SHARE))


def of_long(full: int) -> int:
    """For what `make chaos` has no time for: all of it by `make chaos-long`, a tenth otherwise."""
    return max(1, round(full * (max(0.1, _SHARE / 10) if IS_FULL else _SHARE)))
