"""Lines of a JSON log as a person reads them."""

import json
from typing import Any

_NOT_SHOWN = frozenset({"service", "component"})


def readable(line: str) -> str:
    """A line of a JSON log in readable form; any other line as it is."""
    try:
        entry: dict[str, Any] = json.loads(line)
        time, level, event = entry.pop("timestamp"), entry.pop("level"), entry.pop("event")
    except (ValueError, KeyError, AttributeError, TypeError):
        return line
    facts = " ".join(f"{name}={value}" for name, value in entry.items() if name not in _NOT_SHOWN)
    return f"{time} {level} {event} {facts}".rstrip()
