"""The stream check itself: it takes a right stream, and none of the wrong ones."""

from typing import Any

import pytest

from llama_orch.v2 import task_event_pb2
from support.streams import check_sse, check_stream

STARTED = {"type": "started", "task_id": "task-1", "queue_position": 0, "model": "sim"}
END = {"type": "end", "finish_reason": "EOS", "tokens_in": 3, "tokens_out": 3}


def token(index: int, text: str = "x", *, count: int = 1, choice: int = 0) -> dict[str, Any]:
    return {"type": "token", "t": text, "i": index, "n": count, "choice": choice}


RIGHT: list[dict[str, Any]] = [STARTED, {"type": "placed"}, token(0, "a"), token(1, "bc", count=2), END]


def test_a_right_stream_gives_its_text() -> None:
    assert check_sse(RIGHT) == "abc"


def test_an_error_is_a_terminal_too() -> None:
    assert check_sse([STARTED, token(0, "a"), {"type": "error", "code": "WORKER_LOST"}]) == "a"


def test_a_resumed_stream_goes_on_at_its_index() -> None:
    assert check_sse([STARTED, token(2, "c"), END], first_index=2) == "c"


def test_choices_count_by_themselves() -> None:
    assert check_sse([STARTED, token(0), token(0, choice=1), token(1, choice=1), END]) == "x"


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([], id="nothing"),
        pytest.param(RIGHT[1:], id="not started"),
        pytest.param([STARTED, *RIGHT], id="started twice"),
        pytest.param(RIGHT[:-1], id="no terminal"),
        pytest.param([*RIGHT, END], id="two terminals"),
        pytest.param([*RIGHT, token(3)], id="something after the terminal"),
        pytest.param([STARTED, token(0), token(2), token(3), END], id="a gap"),
        pytest.param([STARTED, token(0), token(0), token(1), END], id="a repetition"),
        pytest.param([STARTED, token(0), END], id="a wrong count at the end"),
    ],
)
def test_a_wrong_stream_fails(wrong: list[dict[str, Any]]) -> None:
    with pytest.raises(AssertionError):
        check_sse(wrong)


def test_text_that_is_not_utf8_fails() -> None:
    with pytest.raises(UnicodeEncodeError):
        check_sse([STARTED, token(0, "\ud83d"), {"type": "error", "code": "INTERNAL"}])


def test_events_of_the_contract_are_checked_alike() -> None:
    events = [
        task_event_pb2.TaskEvent(started=task_event_pb2.Started(model="sim")),
        task_event_pb2.TaskEvent(tokens=task_event_pb2.Tokens(index=0, count=2, text="ab")),
        task_event_pb2.TaskEvent(end=task_event_pb2.End(tokens_out=2)),
    ]
    assert check_stream(events) == "ab"
    with pytest.raises(AssertionError):
        check_stream(events[1:])
