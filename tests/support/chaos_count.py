"""How often chaos tests do what they do.

The full count by `make chaos`, ten times that by `make chaos-long`, a tenth of it otherwise.
"""

import os

_WANTED = os.environ.get("LLORCH_CHAOS", "0.1")
_SHARE = 1.0 if _WANTED == "full" else float(_WANTED)
IS_FULL = _SHARE >= 1


def of(full: int) -> int:
    """LLORCH_CHAOS=full asks for all of it; a number there is the share, 0.1 by default."""
    return max(1, round(full * _SHARE))
