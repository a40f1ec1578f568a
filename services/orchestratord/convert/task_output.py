"""The output of a task as the store keeps it."""

from collections.abc import Sequence

from llama_orch.v2 import log_entry_pb2, run_pb2


def to_bytes(entries: Sequence[log_entry_pb2.LogEntry]) -> bytes:
    return run_pb2.RunDelta(entries=entries).SerializeToString()


def from_bytes(kept: bytes) -> Sequence[log_entry_pb2.LogEntry]:
    return run_pb2.RunDelta.FromString(kept).entries
