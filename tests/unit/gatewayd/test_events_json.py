"""The published shapes, field by field."""

import math
from typing import Any

import pytest
from google.protobuf import json_format

from gatewayd.events_json import _SHOWN, event_json
from gatewayd.json_codec import encode_json
from llama_orch.v2 import task_event_pb2
from llama_orch.v2.task_event_pb2 import TaskEvent


def shown(**event: Any) -> Any:
    return event_json(json_format.ParseDict({"task_id": "t1", **event}, TaskEvent()))


def test_started_shows_a_prediction_only_where_there_is_one() -> None:
    started = {"queue_position": 2, "predicted_start_ms": 0, "model": "m", "seed": "7"}
    assert shown(started=started) == {"type": "started", "task_id": "t1", **started}
    assert "predicted_start_ms" not in shown(started={"model": "m"})


def test_placed_names_what_computes() -> None:
    devices = [{"device_id": "GPU-1", "name": "RTX 3090", "kind": "DEVICE_KIND_CUDA"}]
    placed = {"attempt": 1, "worker_id": "w", "node_id": "n", "engine": "llama_cpp", "engine_version": "1"}
    assert shown(placed={**placed, "devices": devices}) == {
        "type": "placed",
        "attempt": 1,
        "node": "n",
        "worker": "w",
        "devices": [{"id": "GPU-1", "name": "RTX 3090", "kind": "cuda"}],
        "engine": "llama_cpp",
        "engine_version": "1",
        "simulated": False,
        "cpu": False,
    }
    assert shown(placed={**placed, "lost": "ATTEMPT_LOSS_EXIT"})["lost"] == "exit"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"index": 3, "count": 2, "text": " blue"}, {"t": " blue", "i": 3, "n": 2}),
        ({"text": ""}, {"t": "", "i": 0, "n": 0}),
        ({"count": 1, "choice": 1, "text": "a"}, {"t": "a", "i": 0, "n": 1, "choice": 1}),
        ({"count": 1, "reasoning": "hm"}, {"t": "", "i": 0, "n": 1, "reasoning": "hm"}),
        (
            {"count": 1, "toolCall": {"name": "f", "arguments": "{"}},
            {
                "t": "",
                "i": 0,
                "n": 1,
                "tool_call": {"index": 0, "call_id": "", "name": "f", "arguments": "{"},
            },
        ),
        (
            {
                "count": 1,
                "text": "a",
                "logprobs": [{"chosen": {"token_id": 5, "text": "a", "logprob": -0.1, "raw": "YQ=="}}],
            },
            {
                "t": "a",
                "i": 0,
                "n": 1,
                "logprobs": [{"id": 5, "token": "a", "logprob": -0.1, "bytes": [97], "top": []}],
            },
        ),
    ],
)
def test_tokens_are_short(tokens: Any, expected: Any) -> None:
    assert shown(tokens=tokens) == {"type": "token", **expected}


def test_one_choice_ends_at_the_top_and_several_are_listed() -> None:
    numbers = {
        "tokens_in": 4,
        "tokens_out": 2,
        "cached_tokens": 0,
        "queue_ms": 1,
        "first_token_ms": 5,
        "decode_time_ms": 9,
    }
    one = {"finish_reason": "FINISH_REASON_STOP_STRING", "stop_string": "\n", "tokens_out": 2}
    assert shown(end={**numbers, "choices": [one]}) == {
        "type": "end",
        "finish_reason": "stop_string",
        "stop_string": "\n",
        **numbers,
    }
    two = shown(end={"choices": [one, {"choice": 1, "finish_reason": "FINISH_REASON_LENGTH"}]})
    assert two["choices"] == [
        {"choice": 0, "finish_reason": "stop_string", "stop_string": "\n", "tokens_out": 2},
        {"choice": 1, "finish_reason": "length", "tokens_out": 0},
    ]


def test_a_receipt_is_shown_where_there_is_one() -> None:
    end = shown(end={"receipt": {"seed": "5", "token_digest": "ab"}})
    assert end["receipt"] == {"seed": "5", "token_digest": "ab"}


def test_an_error_shows_its_reason_without_prefix() -> None:
    error = {"reason": "ERROR_REASON_WORKER_LOST", "message": "gone", "retryable": True, "retry_after_ms": 0}
    assert shown(error=error) == {
        "type": "error",
        "code": "WORKER_LOST",
        "message": "gone",
        "retryable": True,
        "retry_after_ms": 0,
    }
    assert shown(error={})["code"] == "INTERNAL"


def test_metrics_narration_and_heartbeat() -> None:
    assert shown(metrics={"queue_depth": 1, "on_time_probability": 0.9, "tokens_per_second": 31.4}) == {
        "type": "metrics",
        "queue_depth": 1,
        "on_time_probability": 0.9,
        "tokens_per_second": 31.4,
        "kv_warm_tokens": 0,
    }
    assert shown(narration={"text": "hi"}) == {"type": "narration", "text": "hi"}
    assert shown(heartbeat={}) is None
    assert shown() is None


def test_numbers_that_json_does_not_have_are_null() -> None:
    event = TaskEvent()
    event.metrics.tokens_per_second = math.inf
    assert b'"tokens_per_second":null' in encode_json(event_json(event))


def test_a_number_of_a_newer_release_is_unspecified() -> None:
    event = TaskEvent()
    event.end.choices.add(finish_reason=99)
    json = event_json(event)
    assert json is not None
    assert json["finish_reason"] == "unspecified"


def test_the_shown_types_are_those_of_the_contract() -> None:
    """A new kind of event is either shown or left out on purpose."""
    kinds = {field.name for field in task_event_pb2.TaskEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    assert kinds - set(_SHOWN) == {"heartbeat"}


@pytest.mark.parametrize("end", [{}, {"first_token_ms": 0}], ids=["absent", "0, of an earlier orchestrator"])
def test_the_time_of_a_first_token_that_there_was_not_is_not_told(end: dict[str, int]) -> None:
    told = shown(end={**end, "choices": [{"finish_reason": "FINISH_REASON_CANCELLED"}]})
    assert "first_token_ms" not in told
    assert told["decode_time_ms"] == 0
