"""Between `Reason` and the contract's `ErrorReason`."""

from llama_orch.v2 import error_reason_pb2
from llorch.errors import Reason
from llorch.rpc.enum_table import EnumTable

_REASONS = EnumTable(Reason, error_reason_pb2.ErrorReason)


def reason_to_proto(reason: Reason) -> error_reason_pb2.ErrorReason.ValueType:
    return _REASONS.to_proto(reason)


def reason_of_proto(reason: int) -> Reason:
    """INTERNAL stands for what is not told, and for reasons of a newer release."""
    return _REASONS.find(reason) or Reason.INTERNAL
