"""Why an attempt was lost, in the word that users read."""

from llama_orch.v2 import task_event_pb2

_PREFIX = "ATTEMPT_LOSS_"
_UNSPECIFIED = task_event_pb2.ATTEMPT_LOSS_UNSPECIFIED


def loss_word(loss: int) -> str | None:
    """`ATTEMPT_LOSS_EXIT` is "exit"; None where no attempt was lost, "unknown" for a value of a newer release."""
    if loss == _UNSPECIFIED:
        return None
    known = task_event_pb2.AttemptLoss.DESCRIPTOR.values_by_number.get(loss)
    return "unknown" if known is None else known.name.removeprefix(_PREFIX).lower()
