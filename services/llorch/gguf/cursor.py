"""Reads little-endian values one after the other, never beyond the end and never more than it may. Pure."""

import struct
from typing import BinaryIO

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""The largest headers known have 20 MiB, nearly all of it the vocabulary."""

MAX_STRINGS = 1 << 20
"""Strings in all lists together; they are walked one by one. The largest vocabularies known need 0.8 million."""

_READ_AHEAD = 1024 * 1024
_U64 = struct.Struct("<Q")
_NUMBERS = {size: struct.Struct(form) for size, form in (("u32", "<I"), ("u64", "<Q"))}


class Malformed(Exception):
    """What is wrong with the file, as the rest of a sentence that begins with it."""


class Cursor:
    """`size` is the file's. What was read is kept, so that values can be unpacked where they lie."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._seen = b""
        self._strings_walked = 0
        self.position = 0

    def u32(self) -> int:
        return int(self.unpack(_NUMBERS["u32"]))

    def u64(self) -> int:
        return int(self.unpack(_NUMBERS["u64"]))

    def unpack(self, form: struct.Struct) -> int | float | bool:
        """One value."""
        begin = self._take(form.size)
        value: int | float | bool = form.unpack_from(self._seen, begin)[0]
        return value

    def numbers(self, code: str, width: int, count: int) -> tuple[int | float | bool, ...]:
        """`count` values of the same kind; `code` is struct's, `width` in bytes."""
        begin = self._take(width * count)
        return struct.unpack_from(f"<{count}{code}", self._seen, begin)

    def skip(self, length: int) -> None:
        self._take(length)

    def string(self, most: int, what: str) -> bytes:
        length = self.u64()
        if length > most:
            raise Malformed(f"has {what} of {length} bytes, and {most} are the most")
        begin = self._take(length)
        return self._seen[begin : begin + length]

    def skip_strings(self, count: int) -> None:
        """Walks over `count` strings without looking at them."""
        self._strings_walked += count
        if self._strings_walked > MAX_STRINGS:
            raise Malformed(f"has more than {MAX_STRINGS} strings in its lists")
        if self.position + _U64.size * count > self._size:
            raise self._cut_off()
        left = count
        while left:
            left = self._walk_strings(left)

    def _take(self, length: int) -> int:
        """Where the next `length` bytes begin; they are there afterwards."""
        begin = self.position
        self._read_to(begin + length)
        self.position = begin + length
        return begin

    def _walk_strings(self, count: int) -> int:
        """Goes as far as what was read reaches, reads on, and returns how many strings are left.

        No checks inside the loop: a million strings take 80 ms as it is.
        """
        length_at, seen, position = _U64.unpack_from, self._seen, self.position
        left = count
        try:
            for left in range(count, 0, -1):  # noqa: B007  read after the loop
                position += _U64.size + length_at(seen, position)[0]
            left = 0
        except (struct.error, OverflowError):  # beyond what was read, or beyond any file
            pass
        self.position = position
        self._read_to(position + (_U64.size if left else 0))
        return left

    def _read_to(self, end: int) -> None:
        if end <= len(self._seen):
            return
        if end > self._size:
            raise self._cut_off()
        if end > MAX_HEADER_BYTES:
            raise Malformed(f"has a header of more than {MAX_HEADER_BYTES // 2**20} MiB")
        wanted = max(end - len(self._seen), len(self._seen), _READ_AHEAD)
        self._seen += self._file.read(min(wanted, MAX_HEADER_BYTES - len(self._seen)))
        if end > len(self._seen):
            raise Malformed("became shorter while it was read")

    def _cut_off(self) -> Malformed:
        return Malformed(f"ends inside its header, after {self._size} bytes; it may have been cut off")
