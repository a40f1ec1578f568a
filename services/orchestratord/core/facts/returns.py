"""Clients that were refused and told when to come back, and the places in the queue that are kept for them.

Whether a client that comes is one of them is not known: one that comes when one is due is taken to be that one. Refused
clients get one time each, so they do not come back all at once; and as what leaves the queue does not leave it by the
clock, a few places are not given to newcomers while some are on their way back.

Clients that come again and again without waiting would move the time of all others further and further. Where many
more are refused for each place than could ever get one, and it stays so, that is taken to be the cause: then a client
is told when the next place should be free, and has to be lucky.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from orchestratord.core.learnt.drain_rate import DrainRate

MAX_RETRY_AFTER_MS = 300_000
DEFAULT_RETRY_AFTER_MS = 1_000

EXPECTED_FOR_S = 2.0
"""After the time that it was told: headers have whole seconds, and the way back takes its time."""

KEPT_FREE = 3
"""Places that newcomers leave to those that come back, but a quarter of all at most. With 3, of clients that obey at
1.5 times the load 98 of 100 get in at the first return; with none 65.
"""

OBEYS_UP_TO = 4.0
"""Refusals for each place that becomes free, as a mean of the last ten or so. Clients that obey, at 1.5 times the load
that can be served, come to 1.5; one that asks again at once, to 15 and more.
"""
_WEIGHT, _COUNTED_AT_MOST = 0.1, 10
"""A single burst, however large, does not make the mean."""

MOST_EXPECTED = 4096
"""Further clients are told the time of the last."""


@dataclass(slots=True)
class Returns:
    """Of one app in one class."""

    _rate: DrainRate = field(default_factory=DrainRate)
    _due: deque[float] = field(default_factory=deque)
    _refused: int = 0
    """Since the last departure."""
    _refused_per_place: float = 0.0

    def began(self, now: float) -> None:
        """A task of the app waits, and before it none did."""
        self._rate.began(now)

    def departed(self, now: float, *, others_wait: bool) -> None:
        self._rate.departed(now, others_wait=others_wait)
        refused, self._refused = min(self._refused, _COUNTED_AT_MOST), 0
        self._refused_per_place += _WEIGHT * (refused - self._refused_per_place)

    def may_have(self, now: float, left: int, capacity: int) -> bool:
        """Whether a client that comes now may have one of the places that are left, out of so many. It is one that
        comes back, if one is due.
        """
        while self._due and self._due[0] + EXPECTED_FOR_S < now:
            self._due.popleft()
        if self._due and self._due[0] <= now:
            self._due.popleft()
            return True
        return left > min(len(self._due), KEPT_FREE, capacity // 4)

    def refused(self, now: float, first_s: float) -> int:
        """In how many ms the client should come back, if the next place should be free in `first_s`."""
        self._refused += 1
        interval_s = self._rate.interval_s(now)
        if interval_s is None:
            interval_s = DEFAULT_RETRY_AFTER_MS / 1000
        if self._refused_per_place > OBEYS_UP_TO:
            return _ms(max(interval_s, first_s))
        due = now + max(interval_s, first_s)
        if self._due:
            due = max(due, self._due[-1] + interval_s)
        if len(self._due) < MOST_EXPECTED:
            self._due.append(min(due, now + MAX_RETRY_AFTER_MS / 1000))
        return _ms(self._due[-1] - now)


def _ms(seconds: float) -> int:
    """Rounded up, or the client comes before it is due."""
    return max(1, min(math.ceil(seconds * 1000), MAX_RETRY_AFTER_MS))
