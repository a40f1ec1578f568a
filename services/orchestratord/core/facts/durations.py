"""Times for people."""


def duration(seconds: float) -> str:
    """One number and its unit: 0.3 s, 14 min, 2 h, 3 days."""
    for limit, unit_s, unit in ((10, 1, "s"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds:.1f} {unit}" if limit == 10 else f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
