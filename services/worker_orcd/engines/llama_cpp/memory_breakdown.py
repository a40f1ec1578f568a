"""What a context takes, by kind of memory, as llama.cpp counts it.

The library answers with a C++ map. Its C interface has no such call yet, so that the map is walked here as libstdc++
lays it out: only ever in a process that may crash, and for the pinned version of the library.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

from worker_orcd.engines.entry import MemoryUse

_SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"


class _Node(ctypes.Structure):
    """A node of a red-black tree with its pair: a buffer type, and three sizes in bytes."""

    _fields_ = (
        ("color", ctypes.c_int),
        ("parent", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("buffer_type", ctypes.c_void_p),
        ("weights", ctypes.c_size_t),
        ("cache", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    )


class _Map(ctypes.Structure):
    """A std::map: an empty comparison, the head of the tree, and the number of nodes."""

    _fields_ = (
        ("compare", ctypes.c_void_p),
        ("color", ctypes.c_int),
        ("root", ctypes.c_void_p),
        ("leftmost", ctypes.c_void_p),
        ("rightmost", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


def memory_breakdown(lib: Any, context: int) -> list[MemoryUse]:
    """By kind of memory. Raises AttributeError where the library has no such answer. May crash the process."""
    library = ctypes.CDLL(lib._lib._name)  # noqa: SLF001  the package names its library nowhere else
    ask = getattr(library, _SYMBOL)
    ask.argtypes, ask.restype = [ctypes.c_void_p], _Map
    found: _Map = ask(context)
    name_of = library.ggml_backend_buft_name
    name_of.argtypes, name_of.restype = [ctypes.c_void_p], ctypes.c_char_p
    return [
        MemoryUse(name_of(node.buffer_type).decode(), node.weights, node.cache, node.compute)
        for node in _nodes(found.root)
    ]


def _nodes(address: int | None) -> Iterator[_Node]:
    if not address:
        return
    node = _Node.from_address(address)
    yield from _nodes(node.left)
    yield node
    yield from _nodes(node.right)
