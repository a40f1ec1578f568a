"""The `Date` header, made once a second."""

import time
from email.utils import formatdate

_made: tuple[int, bytes] = (0, b"")


def date_header() -> tuple[bytes, bytes]:
    global _made  # noqa: PLW0603  # a cache of one value
    now = int(time.time())
    if _made[0] != now:
        _made = (now, formatdate(now, usegmt=True).encode())
    return b"date", _made[1]
