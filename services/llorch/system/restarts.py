"""How often `llorch up` starts a daemon again before it counts as broken. Pure."""

from collections import deque

MOST = 5
WITHIN_S = 60.0


class RestartLimit:
    def __init__(self) -> None:
        self._at: deque[float] = deque(maxlen=MOST)

    def allows(self, now_s: float) -> bool:
        """Whether it may be started again now; if so, that counts as a start."""
        if len(self._at) == MOST and now_s - self._at[0] < WITHIN_S:
            return False
        self._at.append(now_s)
        return True
