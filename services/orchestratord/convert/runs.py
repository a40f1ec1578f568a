"""Runs: how one ended, by its worker."""

from llama_orch.v2 import run_pb2
from llorch.finish_reason import FinishReason
from llorch.rpc.enum_tables import FINISH_REASONS
from llorch.rpc.reasons import reason_of_proto
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError


def to_outcome(end: run_pb2.RunEnd) -> RunResult | TaskError:
    if end.HasField("error"):
        error = end.error
        return TaskError(
            reason_of_proto(error.reason),
            error.message,
            error.retry_after_ms if error.HasField("retry_after_ms") else None,
            error.field,
        )
    return to_result(end)


def to_result(end: run_pb2.RunEnd) -> RunResult:
    """The counts; of a run that failed, what it had used by then."""
    choices = tuple(
        ChoiceEnd(choice.choice, _finish_reason(choice.finish_reason), choice.tokens_out, choice.stop_string)
        for choice in end.choices
    )
    receipt = end.receipt.SerializeToString() if end.HasField("receipt") else b""
    return RunResult(choices, end.tokens_in, end.tokens_out, end.cached_tokens, end.decode_ms, receipt, end.prefill_ms)


def _finish_reason(reason: int) -> FinishReason:
    """Unknown ones read as EOS: the answer is whole as far as this version can tell."""
    return FINISH_REASONS.find(reason) or FinishReason.EOS
