"""The audit log, for the operators who read it."""

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import audit_pb2
from llorch.errors import InvalidArgument, Reason
from llorch.redaction import redacted
from orchestratord.store.interface import AuditEntry


def to_proto(entry: AuditEntry) -> audit_pb2.AuditEntry:
    time = Timestamp()
    time.FromMilliseconds(entry.at_ms)
    return audit_pb2.AuditEntry(
        seq=entry.seq,
        time=time,
        actor=entry.actor,
        correlation_id=entry.correlation_id,
        action=entry.action,
        details=redacted(entry.details),
        outcome=entry.outcome,
    )


def seq_of(key: str | None) -> int | None:
    """The number of the last entry of the previous page, by the key in its token."""
    if key is None:
        return None
    if not key.isascii() or not key.isdecimal() or len(key) > 18:
        raise InvalidArgument(
            Reason.INVALID_PAGE_TOKEN, "page_token: not a token of this list; list again from the first page"
        )
    return int(key)
