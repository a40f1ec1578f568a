"""How far a download is, and how fast. Pure; the clock is handed in."""

from collections import deque
from dataclasses import dataclass

_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """In bytes. `total` is None until a server has told it."""

    done: int = 0
    total: int | None = None
    bytes_per_s: float = 0.0


class SpeedMeter:
    """Bytes per second over the last seconds. Bytes of an earlier download do not count."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, received: int) -> float:
        """`received`: bytes since the beginning of this download, at `now_s`."""
        self._seen.append((now_s, received))
        while len(self._seen) > 2 and self._seen[0][0] < now_s - _WINDOW_S:
            self._seen.popleft()
        since_s, before = self._seen[0]
        return (received - before) / (now_s - since_s) if now_s > since_s else 0.0


class SlownessWatch:
    """Notices a server that sends just enough to keep a connection alive."""

    def __init__(self, window_s: float, slowest_bytes_per_s: int, now_s: float) -> None:
        self._window_s = window_s
        self._least = slowest_bytes_per_s * window_s
        self._begin_s = now_s
        self._received = 0

    def is_too_slow(self, now_s: float, received: int) -> bool:
        """`received` more bytes came. Judged once per window."""
        self._received += received
        if now_s - self._begin_s < self._window_s:
            return False
        too_slow = self._received < self._least
        self._begin_s, self._received = now_s, 0
        return too_slow
