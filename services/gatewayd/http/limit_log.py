"""Says which limits clients meet. Each is told at once, and then once a minute at most, with how often it was since: a
client that floods the gateway does not flood its log.
"""

from collections import Counter
from collections.abc import Callable

from llorch.logs import get_logger

TOLD_EVERY_S = 60.0
_log = get_logger("gatewayd")


class LimitLog:
    """`limit` is the name of a setting, or that of a row of SECURITY.md."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._told_at: dict[str, float] = {}
        self._since: Counter[str] = Counter()

    def reached(self, limit: str, client: str, **facts: object) -> None:
        self._since[limit] += 1
        now = self._now()
        if now - self._told_at.get(limit, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            self._told_at[limit] = now
            _log.warning("limit_reached", limit=limit, times=self._since.pop(limit), client=client, **facts)
