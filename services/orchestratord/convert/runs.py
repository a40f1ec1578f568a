"""Runs: how a worker says that one ended."""

from llama_orch.v2 import error_reason_pb2, run_pb2, task_event_pb2
from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError

_PREFIX = "FINISH_REASON_"
_REASON_PREFIX = "ERROR_REASON_"


def to_outcome(end: run_pb2.RunEnd) -> RunResult | TaskError:
    if end.HasField("error"):
        error = end.error
        return TaskError(
            to_reason(error.reason),
            error.message,
            error.retryable,
            error.retry_after_ms if error.HasField("retry_after_ms") else None,
        )
    choices = tuple(
        ChoiceEnd(choice.choice, to_finish_reason(choice.finish_reason), choice.tokens_out, choice.stop_string)
        for choice in end.choices
    )
    receipt = end.receipt.SerializeToString() if end.HasField("receipt") else b""
    return RunResult(choices, end.tokens_in, end.tokens_out, end.cached_tokens, end.decode_ms, receipt, end.prefill_ms)


def to_reason(reason: "error_reason_pb2.ErrorReason.ValueType") -> Reason:
    """Unknown ones, of a newer peer, read as INTERNAL."""
    name = error_reason_pb2.ErrorReason.Name(reason) if reason in error_reason_pb2.ErrorReason.values() else ""
    return Reason.__members__.get(name.removeprefix(_REASON_PREFIX), Reason.INTERNAL)


def from_reason(reason: Reason) -> "error_reason_pb2.ErrorReason.ValueType":
    return error_reason_pb2.ErrorReason.Value(f"{_REASON_PREFIX}{reason.value}")


def to_finish_reason(reason: "task_event_pb2.FinishReason.ValueType") -> FinishReason:
    """Unknown ones read as EOS: the answer is whole as far as this version can tell."""
    if reason not in task_event_pb2.FinishReason.values():
        return FinishReason.EOS
    return FinishReason.__members__.get(
        task_event_pb2.FinishReason.Name(reason).removeprefix(_PREFIX), FinishReason.EOS
    )


def from_finish_reason(reason: FinishReason) -> "task_event_pb2.FinishReason.ValueType":
    return task_event_pb2.FinishReason.Value(f"{_PREFIX}{reason.value}")
