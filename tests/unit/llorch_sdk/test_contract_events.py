"""Whatever an event of the contract tells, the SDK's event tells. A new field fails here."""

from dataclasses import fields
from typing import Any

import pytest

from llama_orch.v2 import engine_pb2, log_entry_pb2, task_event_pb2
from llorch import End, Tokens
from llorch.sdk import events
from llorch.sdk.convert import event_from_message

OF_EVERY_EVENT = {"task_id", "cursor"}

EVENTS = [
    (events.Started, task_event_pb2.Started),
    (events.Placed, task_event_pb2.Placed),
    (events.Tokens, task_event_pb2.Tokens),
    (events.Metrics, task_event_pb2.Metrics),
    (events.Narration, task_event_pb2.Narration),
    (events.End, task_event_pb2.End),
    (events.Failed, task_event_pb2.Error),
]
PARTS = [
    (events.PlacedDevice, task_event_pb2.PlacedDevice),
    (events.ToolCallDelta, log_entry_pb2.ToolCallDelta),
    (events.TokenLogprob, log_entry_pb2.TokenLogprob),
    (events.PositionLogprobs, log_entry_pb2.PositionLogprobs),
    (events.ChoiceEnd, task_event_pb2.ChoiceEnd),
    (events.DeterminismReceipt, task_event_pb2.DeterminismReceipt),
]


@pytest.mark.parametrize(("kind", "message"), EVENTS + PARTS, ids=lambda one: one.__name__)
def test_an_event_has_every_field_of_the_contract(kind: Any, message: Any) -> None:
    of_every_event = OF_EVERY_EVENT if (kind, message) in EVENTS else set()

    assert {field.name for field in fields(kind)} == set(message.DESCRIPTOR.fields_by_name) | of_every_event


def test_every_kind_of_event_is_told_but_heartbeats() -> None:
    kinds = {field.name for field in task_event_pb2.TaskEvent.DESCRIPTOR.oneofs_by_name["event"].fields}

    for kind in kinds - {"heartbeat"}:
        message = task_event_pb2.TaskEvent(task_id="t", cursor="c")
        getattr(message, kind).SetInParent()
        event = event_from_message(message)
        assert event is not None, kind
        assert (event.task_id, event.cursor) == ("t", "c")
    assert event_from_message(task_event_pb2.TaskEvent(heartbeat=task_event_pb2.Heartbeat())) is None


def test_log_probabilities_come_with_their_tokens() -> None:
    chosen = log_entry_pb2.TokenLogprob(token_id=7, text="a", logprob=-0.5, raw=b"a")
    other = log_entry_pb2.TokenLogprob(token_id=8, text="b", logprob=-1.5, raw=b"b")
    position = log_entry_pb2.PositionLogprobs(chosen=chosen, top=[chosen, other])

    event = event_from_message(task_event_pb2.TaskEvent(tokens=task_event_pb2.Tokens(logprobs=[position])))

    assert isinstance(event, Tokens)
    assert event.logprobs[0].chosen == events.TokenLogprob(7, "a", -0.5, b"a")
    assert [token.token_id for token in event.logprobs[0].top] == [7, 8]


def test_the_end_tells_of_each_choice_and_has_the_receipt() -> None:
    choice = task_event_pb2.ChoiceEnd(
        choice=1, finish_reason=task_event_pb2.FINISH_REASON_STOP_STRING, tokens_out=3, stop_string="END"
    )
    fingerprint = engine_pb2.EngineFingerprint(engine_version="sim 1")
    receipt = task_event_pb2.DeterminismReceipt(fingerprint=fingerprint, seed=7, token_digest="0f")

    event = event_from_message(task_event_pb2.TaskEvent(end=task_event_pb2.End(choices=[choice], receipt=receipt)))

    assert isinstance(event, End)
    assert event.choices == (events.ChoiceEnd(1, events.FinishReason.STOP_STRING, 3, "END"),)
    assert event.finish_reasons == (events.FinishReason.STOP_STRING,)
    assert event.receipt == events.DeterminismReceipt(fingerprint, 7, "0f")
