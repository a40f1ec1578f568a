"""The rolling digest of a task's output log, by which two logs, or two beginnings of one, are told apart."""

import zlib
from collections.abc import Iterable

from llama_orch.v2 import log_entry_pb2


def digest_after(entries: Iterable[log_entry_pb2.LogEntry], before: int = 0) -> int:
    """After these entries: 32 bits. `before` is the digest of all entries before them, 0 if there are none."""
    for entry in entries:
        before = zlib.crc32(entry.SerializeToString(), before)
    return before
