"""The frames of HTTP/2 that a client sends, before any other code looks at them: how many there may be that ask for
nothing, how long a head may be, and what is kept from the library.
"""

_HEADER = 9
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x7, 0x9
_END_STREAM = 0x1

_COSTS = {_RST_STREAM: 2, _SETTINGS: 4}
"""What the others cost: 1. Reading and answering one takes the gateway 10 to 40 µs."""

_SMALL = 256
"""Bytes. A frame of data below this costs as much as one that asks for nothing, unless it ends a request's body."""

_EARNED_BY_DATA = 2
"""A client may answer each frame of data that it gets by opening two windows: the stream's and the connection's."""

_SETTING = 6
"""Bytes of one entry."""

_MOST_SETTINGS = 200
"""Of a connection. There are eight that mean something, and h2 keeps all others for ever, 0.9 KiB each."""

_MOST_OPEN = 1024
"""Requests whose bodies have not ended; more than a connection may have at once."""


class FrameBudget:
    """Reads the heads of frames as they come, in pieces of any size.

    A budget of `most`, which grows by `per_s` a second up to `most` again. A head that is longer than `most_head_bytes`
    ends it at once. `goes_away`: the client asks for nothing more; the library would answer nothing more either, so it
    does not see that.
    """

    def __init__(self, most: float, per_s: float, now: float, *, skip: int, most_head_bytes: int) -> None:
        self._most = most
        self._per_s = per_s
        self._left = most
        self._at = now
        self._skip = skip
        self._most_head_bytes = most_head_bytes
        self._head = b""
        self._head_bytes = 0
        self._settings = 0
        self._newest = 0
        self._open: set[int] = set()
        self._keeps = True
        self.goes_away = False

    @property
    def left_of_frame(self) -> int:
        """Bytes of the frame that is being read which are still to come."""
        return self._skip

    def sent_data(self) -> None:
        self._left = min(self._most, self._left + _EARNED_BY_DATA)

    def take(self, data: bytes, now: float) -> bytes | None:
        """What the library may read of it; None where the connection has to end."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        kept = bytearray()
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                if self._keeps:
                    kept += data[position : position + step]
                self._skip -= step
                position += step
                continue
            missing = _HEADER - len(self._head)
            self._head += data[position : position + missing]
            position += missing
            if len(self._head) == _HEADER:
                self._left -= self._cost()
                if self._keeps:
                    kept += self._head
                self._head = b""
        return bytes(kept) if self._left >= 0 else None

    def _cost(self) -> float:
        length, kind, flags = int.from_bytes(self._head[:3]), self._head[3], self._head[4]
        stream = int.from_bytes(self._head[5:]) & 0x7FFFFFFF
        self._skip = length
        self._keeps = kind != _GOAWAY
        if kind == _GOAWAY:
            self.goes_away = True
        if kind in (_HEADERS, _CONTINUATION):
            return self._cost_of_head(kind, flags, stream, length)
        if kind == _DATA:
            return self._cost_of_data(flags, stream, length)
        if kind == _SETTINGS:
            self._settings += length // _SETTING
            if self._settings > _MOST_SETTINGS:
                return float("inf")
        self._open.discard(stream if kind == _RST_STREAM else 0)
        return _COSTS.get(kind, 1)

    def _cost_of_head(self, kind: int, flags: int, stream: int, length: int) -> float:
        """Nothing for that of a new request: what that costs is its own matter."""
        self._head_bytes = length + (self._head_bytes if kind == _CONTINUATION else 0)
        if self._head_bytes > self._most_head_bytes or len(self._open) > _MOST_OPEN:
            return float("inf")
        is_new = kind == _HEADERS and stream > self._newest
        if is_new:
            self._newest = stream
            if not flags & _END_STREAM:
                self._open.add(stream)
        return 0 if is_new else 1

    def _cost_of_data(self, flags: int, stream: int, length: int) -> float:
        ends = bool(flags & _END_STREAM) and stream in self._open
        if ends:
            self._open.discard(stream)
        return 0 if ends or (length >= _SMALL and stream <= self._newest) else 1
