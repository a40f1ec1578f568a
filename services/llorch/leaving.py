"""The end of a process, once its work is done and what it had open is closed.

The interpreter's own way out waits for threads: gRPC gives its own up to 60 s to come to rest, and those of Python that
are stuck, on a disk for example, are waited for without end.
"""

import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """At once, with what was written."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader has gone, or it was closed
            stream.flush()
    os._exit(code)
