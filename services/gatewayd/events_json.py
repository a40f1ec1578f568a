"""Task events as the published API shows them; the one JSON that protobuf's own mapping does not write.

The oneof is flattened: `{"type":"token","t":" blue","i":3,"n":1}`. A field with `?` is left out when it has
nothing to say:

    started    task_id queue_position predicted_start_ms? model seed
    placed     attempt node worker devices engine engine_version simulated cpu lost?
    token      t i n choice? reasoning? tool_call? logprobs?     i: index of the first of n tokens
    metrics    queue_depth on_time_probability? tokens_per_second kv_warm_tokens
    narration  text
    end        finish_reason stop_string? tokens_in tokens_out cached_tokens queue_ms first_token_ms?
               decode_time_ms receipt? choices?                  choices: where there are several
    error      code message retryable retry_after_ms?

A heartbeat is no event here: the comments of the SSE stream show that it is alive.
"""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from gatewayd.transcode import message_to_dict
from llama_orch.v2 import log_entry_pb2, task_event_pb2
from llorch.rpc.attempt_loss import loss_word
from llorch.rpc.enum_tables import DEVICE_KINDS, FINISH_REASONS
from llorch.rpc.reasons import reason_of_proto

Json = dict[str, Any]


def event_json(event: task_event_pb2.TaskEvent) -> Json | None:
    """None for an event that is not shown, and for one of a kind that this release does not know."""
    kind = event.WhichOneof("event")
    show = _SHOWN.get(kind or "")
    return show(event) if show is not None else None


def _started(event: task_event_pb2.TaskEvent) -> Json:
    started = event.started
    shown: Json = {"type": "started", "task_id": event.task_id, "queue_position": started.queue_position}
    if started.HasField("predicted_start_ms"):
        shown["predicted_start_ms"] = started.predicted_start_ms
    # 64 bits are a string, as everywhere in protobuf's JSON: most readers would round the number.
    return {**shown, "model": started.model, "seed": str(started.seed)}


def _placed(event: task_event_pb2.TaskEvent) -> Json:
    placed = event.placed
    lost = loss_word(placed.lost)
    return {
        "type": "placed",
        "attempt": placed.attempt,
        "node": placed.node_id,
        "worker": placed.worker_id,
        "devices": [
            {"id": device.device_id, "name": device.name, "kind": _published(DEVICE_KINDS.find(device.kind))}
            for device in placed.devices
        ],
        "engine": placed.engine,
        "engine_version": placed.engine_version,
        "simulated": placed.simulated,
        "cpu": placed.cpu,
        **({} if lost is None else {"lost": lost}),
    }


def _token(event: task_event_pb2.TaskEvent) -> Json:
    tokens = event.tokens
    shown: Json = {"type": "token", "t": tokens.text, "i": tokens.index, "n": tokens.count}
    if tokens.choice:
        shown["choice"] = tokens.choice
    if tokens.reasoning:
        shown["reasoning"] = tokens.reasoning
    if tokens.HasField("tool_call"):
        shown["tool_call"] = message_to_dict(tokens.tool_call)
    if tokens.logprobs:
        shown["logprobs"] = [_position(position) for position in tokens.logprobs]
    return shown


def _position(position: log_entry_pb2.PositionLogprobs) -> Json:
    return {**_logprob(position.chosen), "top": [_logprob(token) for token in position.top]}


def _logprob(token: log_entry_pb2.TokenLogprob) -> Json:
    return {
        "id": token.token_id,
        "token": token.text,
        "logprob": _number(token.logprob),
        "bytes": list(token.raw),
    }


def _metrics(event: task_event_pb2.TaskEvent) -> Json:
    metrics = event.metrics
    shown: Json = {"type": "metrics", "queue_depth": metrics.queue_depth}
    if metrics.HasField("on_time_probability"):
        shown["on_time_probability"] = _number(metrics.on_time_probability)
    return {
        **shown,
        "tokens_per_second": _number(metrics.tokens_per_second),
        "kv_warm_tokens": metrics.kv_warm_tokens,
    }


def _narration(event: task_event_pb2.TaskEvent) -> Json:
    return {"type": "narration", "text": event.narration.text}


def _end(event: task_event_pb2.TaskEvent) -> Json:
    end = event.end
    shown: Json = {"type": "end", **_choice(end.choices[0] if end.choices else task_event_pb2.ChoiceEnd())}
    for field in ("tokens_in", "tokens_out", "cached_tokens", "queue_ms", "first_token_ms", "decode_time_ms"):
        if field != "first_token_ms" or end.first_token_ms:  # 0 of an earlier orchestrator: there was no token
            shown[field] = getattr(end, field)
    if end.HasField("receipt"):
        shown["receipt"] = message_to_dict(end.receipt)
    if len(end.choices) > 1:
        shown["choices"] = [
            {"choice": choice.choice, **_choice(choice), "tokens_out": choice.tokens_out} for choice in end.choices
        ]
    return shown


def _choice(choice: task_event_pb2.ChoiceEnd) -> Json:
    shown: Json = {"finish_reason": _published(FINISH_REASONS.find(choice.finish_reason))}
    if choice.stop_string:
        shown["stop_string"] = choice.stop_string
    return shown


def _error(event: task_event_pb2.TaskEvent) -> Json:
    error = event.error
    code = reason_of_proto(error.reason).value
    shown: Json = {"type": "error", "code": code, "message": error.message, "retryable": error.retryable}
    if error.HasField("retry_after_ms"):
        shown["retry_after_ms"] = error.retry_after_ms
    return shown


def _published(member: StrEnum | None) -> str:
    """`FinishReason.STOP_STRING` is published as `stop_string`; a value of a newer release as unspecified."""
    return "unspecified" if member is None else member.name.lower()


def _number(value: float) -> float | None:
    """32 bits hold about seven digits; the rest would be noise. JSON has no infinity."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


_SHOWN: dict[str, Callable[[task_event_pb2.TaskEvent], Json]] = {
    "started": _started,
    "placed": _placed,
    "tokens": _token,
    "metrics": _metrics,
    "narration": _narration,
    "end": _end,
    "error": _error,
}
