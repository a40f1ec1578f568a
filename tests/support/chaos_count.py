"""How often chaos tests do what they do: the full count by `make chaos`, a tenth of it otherwise."""

import os

IS_FULL = os.environ.get("LLORCH_CHAOS") == "full"


def of(full: int) -> int:
    """LLORCH_CHAOS=full asks for all of it; a number there is the share, 0.1 by default."""
    wanted = os.environ.get("LLORCH_CHAOS", "0.1")
    return max(1, round(full * (1.0 if wanted == "full" else float(wanted))))
