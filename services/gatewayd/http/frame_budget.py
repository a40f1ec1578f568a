"""How many frames of HTTP/2 that ask for nothing a client may send."""

_HEADER = 9
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0x0, 0x1, 0x3, 0x4
_COSTS = {_HEADERS: 0, _RST_STREAM: 2, _SETTINGS: 4}
"""What the others cost: 1. Reading and answering one takes the gateway 10 to 40 µs."""

_SMALL = 256
"""Bytes. A frame of data below this costs as much as one that asks for nothing, unless it ends a body."""

_END_STREAM = 0x1

_EARNED_BY_DATA = 2
"""A client may answer each frame of data that it gets by opening two windows: the stream's and the connection's."""


class FrameBudget:
    """Reads the heads of frames as they come, in pieces of any size, before any other code looks at them.

    A budget of `most`, which grows by `per_s` a second up to `most` again.
    """

    def __init__(self, most: float, per_s: float, now: float, *, skip: int) -> None:
        self._most = most
        self._per_s = per_s
        self._left = most
        self._at = now
        self._skip = skip
        self._head = b""

    def sent_data(self) -> None:
        self._left = min(self._most, self._left + _EARNED_BY_DATA)

    def take(self, data: bytes, now: float) -> bool:
        """Whether the client may send this; once not, the connection has to end."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            missing = _HEADER - len(self._head)
            self._head += data[position : position + missing]
            position += missing
            if len(self._head) == _HEADER:
                self._left -= self._cost()
                self._head = b""
        return self._left >= 0

    def _cost(self) -> int:
        length, kind, flags = int.from_bytes(self._head[:3]), self._head[3], self._head[4]
        self._skip = length
        if kind == _DATA and (length >= _SMALL or flags & _END_STREAM):
            return 0
        return _COSTS.get(kind, 1)
