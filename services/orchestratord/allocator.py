"""Has the C library give back the memory of prompts once they are gone.

A prompt is copied several times on its way: by gRPC, protobuf, for its digest, for the disk, for the worker. By default
glibc learns from the first large block that was freed to take later ones out of its heaps, one per thread, where they
leave holes.
"""

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE_BYTES = 256 * 1024
_HEAPS = 2


def give_back_large_blocks() -> None:
    """Before threads begin. Where the C library is another one, nothing changes."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _HEAPS)
