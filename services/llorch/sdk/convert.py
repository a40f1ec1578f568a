"""The only place where the SDK's dataclasses meet the contract's messages."""

from collections.abc import Callable, Mapping
from typing import Any

from llama_orch.v2 import log_entry_pb2, task_event_pb2, task_service_pb2
from llorch.finish_reason import FinishReason
from llorch.rpc.attempt_loss import loss_word
from llorch.rpc.enum_tables import DEVICE_KINDS, FINISH_REASONS
from llorch.rpc.reasons import reason_of_proto
from llorch.sdk import events
from llorch.sdk.embeddings import Embeddings
from llorch.sdk.ranking import RankedDocument, Ranking
from llorch.sdk.tokens import TokenCount, Tokenized

_FINISH_REASONS = {reason: events.FinishReason[reason.name] for reason in FinishReason}


def event_from_message(message: task_event_pb2.TaskEvent) -> events.Event | None:
    """None for heartbeats, and for kinds that a newer orchestrator may send."""
    kind = message.WhichOneof("event")
    build = _BUILDERS.get(kind) if kind else None
    return build(message, getattr(message, str(kind))) if build else None


def embeddings_from_message(message: task_service_pb2.EmbedResponse) -> Embeddings:
    vectors = tuple(tuple(vector.values) for vector in message.embeddings)
    return Embeddings(message.task_id, vectors, message.tokens_in)


def ranking_from_message(message: task_service_pb2.RerankResponse) -> Ranking:
    documents = tuple(RankedDocument(document.index, document.score) for document in message.documents)
    return Ranking(message.task_id, documents, message.tokens_in)


def count_from_message(message: task_service_pb2.CountTokensResponse) -> TokenCount:
    return TokenCount(message.tokens_in, _optional(message, "context"))


def tokenized_from_message(message: task_service_pb2.TokenizeResponse) -> Tokenized:
    return Tokenized(tuple(message.token_ids), tuple(message.pieces))


def device_kind(kind: int) -> str:
    """The name of a DeviceKind, as users know it."""
    known = DEVICE_KINDS.find(kind)
    return known.lower() if known else "unknown"


def _started(message: task_event_pb2.TaskEvent, started: task_event_pb2.Started) -> events.Started:
    return events.Started(
        task_id=message.task_id,
        cursor=message.cursor,
        model=started.model,
        queue_position=started.queue_position,
        predicted_start_ms=_optional(started, "predicted_start_ms"),
        seed=started.seed,
    )


def _placed(message: task_event_pb2.TaskEvent, placed: task_event_pb2.Placed) -> events.Placed:
    return events.Placed(
        task_id=message.task_id,
        cursor=message.cursor,
        attempt=placed.attempt,
        worker_id=placed.worker_id,
        node_id=placed.node_id,
        devices=tuple(
            events.PlacedDevice(device.device_id, device.name, device_kind(device.kind)) for device in placed.devices
        ),
        engine=placed.engine,
        engine_version=placed.engine_version,
        simulated=placed.simulated,
        cpu=placed.cpu,
        lost=loss_word(placed.lost),
    )


def _tokens(message: task_event_pb2.TaskEvent, tokens: task_event_pb2.Tokens) -> events.Tokens:
    call = tokens.tool_call if tokens.HasField("tool_call") else None
    return events.Tokens(
        task_id=message.task_id,
        cursor=message.cursor,
        index=tokens.index,
        count=tokens.count,
        choice=tokens.choice,
        text=tokens.text,
        reasoning=tokens.reasoning,
        tool_call=events.ToolCallDelta(call.index, call.call_id, call.name, call.arguments) if call else None,
        token_ids=tuple(tokens.token_ids),
        logprobs=tuple(_position(position) for position in tokens.logprobs),
    )


def _position(position: log_entry_pb2.PositionLogprobs) -> events.PositionLogprobs:
    return events.PositionLogprobs(_logprob(position.chosen), tuple(_logprob(token) for token in position.top))


def _logprob(token: log_entry_pb2.TokenLogprob) -> events.TokenLogprob:
    return events.TokenLogprob(token.token_id, token.text, token.logprob, token.raw)


def _metrics(message: task_event_pb2.TaskEvent, metrics: task_event_pb2.Metrics) -> events.Metrics:
    return events.Metrics(
        task_id=message.task_id,
        cursor=message.cursor,
        queue_depth=metrics.queue_depth,
        on_time_probability=_optional(metrics, "on_time_probability"),
        tokens_per_second=metrics.tokens_per_second,
        kv_warm_tokens=metrics.kv_warm_tokens,
    )


def _narration(message: task_event_pb2.TaskEvent, narration: task_event_pb2.Narration) -> events.Narration:
    return events.Narration(task_id=message.task_id, cursor=message.cursor, text=narration.text)


def _end(message: task_event_pb2.TaskEvent, end: task_event_pb2.End) -> events.End:
    return events.End(
        task_id=message.task_id,
        cursor=message.cursor,
        choices=tuple(
            events.ChoiceEnd(choice.choice, _finish_reason(choice.finish_reason), choice.tokens_out, choice.stop_string)
            for choice in end.choices
        ),
        tokens_in=end.tokens_in,
        tokens_out=end.tokens_out,
        cached_tokens=end.cached_tokens,
        queue_ms=end.queue_ms,
        first_token_ms=_optional(end, "first_token_ms") or None,  # 0 of earlier orchestrators: none
        decode_time_ms=end.decode_time_ms,
        receipt=_receipt(end.receipt) if end.HasField("receipt") else None,
    )


def _receipt(receipt: task_event_pb2.DeterminismReceipt) -> events.DeterminismReceipt:
    return events.DeterminismReceipt(receipt.fingerprint, receipt.seed, receipt.token_digest)


def _failed(message: task_event_pb2.TaskEvent, error: task_event_pb2.Error) -> events.Failed:
    return events.Failed(
        task_id=message.task_id,
        cursor=message.cursor,
        reason=reason_of_proto(error.reason),
        message=error.message,
        retryable=error.retryable,
        retry_after_ms=_optional(error, "retry_after_ms"),
        field=error.field,
    )


_BUILDERS: Mapping[str, Callable[[task_event_pb2.TaskEvent, Any], events.Event]] = {
    "started": _started,
    "placed": _placed,
    "tokens": _tokens,
    "metrics": _metrics,
    "narration": _narration,
    "end": _end,
    "error": _failed,
}


def _finish_reason(reason: int) -> events.FinishReason:
    known = FINISH_REASONS.find(reason)
    return _FINISH_REASONS[known] if known else events.FinishReason.UNKNOWN


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
