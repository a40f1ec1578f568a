"""How much memory this process holds outside of Python's objects: what leaks there, no collector finds."""

import ctypes
import gc

import pytest


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def bytes_in_use() -> int:
    """What the C library has handed out and not got back. Skips the test where the C library can't tell."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        pytest.skip("needs mallinfo2 of glibc 2.33 or newer")
    library.mallinfo2.restype = _Mallinfo
    gc.collect()
    found = library.mallinfo2()
    return int(found.uordblks) + int(found.hblkhd)
