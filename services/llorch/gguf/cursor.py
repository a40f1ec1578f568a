"""Reads little-endian values one after the other, never beyond the end and never more than it may. Pure."""

import struct
from typing import BinaryIO

MAX_HEADER_BYTES = 32 * 1024 * 1024
"""The largest headers known have 16 MiB, nearly all of it the vocabulary."""

MAX_STRINGS = 1 << 20
"""Strings in all lists together; they are walked one by one. The largest vocabularies known need 0.8 million."""

_READ_AHEAD = 256 * 1024
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class Malformed(Exception):
    """What is wrong with the file, as the rest of a sentence that begins with it."""


class Cursor:
    """`size` is the file's, `position` where the next value begins. A window of the file is kept; what lies behind the
    position is dropped as it moves on.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._window = b""
        self._window_at = 0
        self._strings_walked = 0
        self.position = 0

    def u32(self) -> int:
        return int(self.unpack(_U32))

    def u64(self) -> int:
        return int(self.unpack(_U64))

    def unpack(self, form: struct.Struct) -> int | float | bool:
        """One value."""
        begin = self._take(form.size)
        value: int | float | bool = form.unpack_from(self._window, begin)[0]
        return value

    def numbers(self, code: str, width: int, count: int) -> tuple[int | float | bool, ...]:
        """`count` values of the same kind; `code` is struct's, `width` in bytes."""
        begin = self._take(width * count)
        return struct.unpack_from(f"<{count}{code}", self._window, begin)

    def raw(self, length: int) -> bytes:
        begin = self._take(length)
        return self._window[begin : begin + length]

    def string(self, most: int, what: str) -> bytes:
        length = self.u64()
        if length > most:
            raise Malformed(f"has {what} of {length} bytes, and {most} are the most")
        return self.raw(length)

    def skip(self, length: int) -> None:
        """Without reading what lies between."""
        self._check(self.position + length)
        self.position += length

    def skip_strings(self, count: int) -> None:
        """Walks over `count` strings without looking at them."""
        self._strings_walked += count
        if self._strings_walked > MAX_STRINGS:
            raise Malformed(f"has more than {MAX_STRINGS} strings in its lists")
        self._check(self.position + _U64.size * count)
        while count:
            self._see(_U64.size)
            count = self._walk_strings(count)

    def _walk_strings(self, count: int) -> int:
        """Goes as far as the window reaches, at least over one string, and returns how many are left.

        No checks inside the loop: a million strings take 80 ms as it is.
        """
        length_at, window, position = _U64.unpack_from, self._window, self.position - self._window_at
        left = count
        try:
            while left:
                position += _U64.size + length_at(window, position)[0]
                left -= 1
        except (struct.error, OverflowError):  # beyond the window, or beyond any file
            pass
        self.skip(self._window_at + position - self.position)
        return left

    def _take(self, length: int) -> int:
        """Where in the window the next `length` bytes begin, which are in it then; they count as read."""
        self._see(length)
        begin = self.position - self._window_at
        self.position += length
        return begin

    def _see(self, length: int) -> None:
        """Moves the window until the next `length` bytes are in it."""
        end = self.position + length
        if end <= self._window_at + len(self._window):
            return
        self._check(end)
        self._file.seek(self.position)
        self._window_at = self.position
        self._window = self._file.read(max(length, _READ_AHEAD))
        if len(self._window) < length:
            raise Malformed("became shorter while it was read")

    def _check(self, end: int) -> None:
        if end > self._size:
            raise Malformed(f"ends inside its header, after {self._size} bytes; it may have been cut off")
        if end > MAX_HEADER_BYTES:
            raise Malformed(f"has a header of more than {MAX_HEADER_BYTES // 2**20} MiB")
