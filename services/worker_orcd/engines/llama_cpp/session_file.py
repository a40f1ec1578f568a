"""A file of a saved sequence: what it says, and the proof that a worker of this host wrote it.

In it are a magic line, five numbers (8 bytes each), the token ids (4 bytes each), the state as the engine wrote it, and
a code: BLAKE2b, keyed, of the session and the kind of worker that the file belongs to and of all that stands before it.
Numbers are little-endian.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from zlib import crc32

import numpy as np
import psutil

from worker_orcd.engines.llama_cpp.host_cache import SavedSequence, State

PART_OF_MEMORY = 0.5
"""Of what the host has left, for a state between the disk and the engine."""

_MAGIC = b"llama-orch kv 1\n"
_HEADER = struct.Struct("<16s5q")
"""The magic line; how many tokens, first_position, watermark, bytes of the state, its CRC-32."""

_CODE_BYTES = 32


class NotProven(Exception):
    """The file is not taken; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class SavedHead:
    """What a file says of itself, unproven: good for choosing one."""

    path: Path
    tokens: list[int]
    first_position: int
    watermark: int
    state_bytes: int
    checksum: int


def size_of(tokens: int, state_bytes: int) -> int:
    return _HEADER.size + 4 * tokens + state_bytes + _CODE_BYTES


def beginning_of(saved: SavedSequence) -> bytes:
    """What stands before the state."""
    tokens, state = saved.tokens, saved.state
    numbers = (len(tokens), saved.first_position, saved.watermark, state.nbytes, crc32(state.data))
    return _HEADER.pack(_MAGIC, *numbers) + np.array(tokens, "<i4").tobytes()


def new_code(key: bytes, session: str, kind: str) -> blake2b:
    """To be fed with what is written, and to be written last."""
    return blake2b(f"{session} {kind}\n".encode(), key=key, digest_size=_CODE_BYTES)


def read_head(path: Path) -> SavedHead | None:
    """None for what is no such file, or can't be read."""
    try:
        with path.open("rb") as file:
            descriptor = file.fileno()
            return _head_in(path, os.fstat(descriptor).st_size, lambda at, count: os.pread(descriptor, count, at))
    except (OSError, ValueError, struct.error):  # its time was over just now, or it is cut while it is read
        return None


def read_proven(path: Path, code: blake2b, session: str) -> SavedSequence:
    """Reads all of it. `code` is new. Raises NotProven, and OSError."""
    content = _whole(path)
    code.update(content[:-_CODE_BYTES].data)
    head = _head_in(path, content.nbytes, lambda at, count: content[at : at + count].tobytes())
    if head is None or not compare_digest(code.digest(), content[-_CODE_BYTES:].tobytes()):
        raise NotProven("it is not what a worker of this host wrote")
    state = content[_HEADER.size + 4 * len(head.tokens) : -_CODE_BYTES]
    if crc32(state.data) != head.checksum:
        raise NotProven("its checksum is another")
    return SavedSequence(head.tokens, state, head.first_position, head.watermark, session)


def _head_in(path: Path, size: int, read: Callable[[int, int], bytes]) -> SavedHead | None:
    """None for what is no such file. `read` gives so many bytes from a position on. A file of a later release has
    another magic line.
    """
    if size < _HEADER.size:
        return None
    magic, count, first, watermark, state_bytes, checksum = _HEADER.unpack(read(0, _HEADER.size))
    if magic != _MAGIC or min(count, state_bytes) < 1 or size_of(count, state_bytes) != size:
        return None
    tokens = np.frombuffer(read(_HEADER.size, 4 * count), "<i4", count).tolist()
    return SavedHead(path, tokens, first, watermark, state_bytes, checksum)


def _whole(path: Path) -> State:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > PART_OF_MEMORY * psutil.virtual_memory().available:
            raise NotProven(f"the host has not twice the memory that its {size // 2**20} MiB take")
        content = np.fromfile(file, np.uint8, size)
    if content.nbytes != size or size <= _CODE_BYTES:
        raise NotProven("it is cut")
    return content
