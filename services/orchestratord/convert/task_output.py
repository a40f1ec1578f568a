"""The output of a task as bytes: as its log packs it, and as the store keeps it."""

from collections.abc import Sequence

from llama_orch.v2 import log_entry_pb2, run_pb2
from llorch.rpc.log_digest import digest_after
from orchestratord.core.facts.task_log import Packing


def to_bytes(entries: Sequence[log_entry_pb2.LogEntry]) -> bytes:
    return run_pb2.RunDelta(entries=entries).SerializeToString()


def from_bytes(kept: bytes) -> Sequence[log_entry_pb2.LogEntry]:
    return run_pb2.RunDelta.FromString(kept).entries


def _digest_after(entry: log_entry_pb2.LogEntry, before: int) -> int:
    return digest_after((entry,), before)


PACKING: Packing[log_entry_pb2.LogEntry] = Packing(to_bytes, from_bytes, log_entry_pb2.LogEntry.ByteSize, _digest_after)
