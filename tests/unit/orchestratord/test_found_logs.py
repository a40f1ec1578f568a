"""Cursors and counts that are wrong after a start of the orchestrator."""

from datetime import UTC, datetime

import pytest

from llama_orch.v2 import log_entry_pb2
from llorch.errors import InvalidArgument, Reason
from orchestratord.core.facts.task import TaskRequest
from orchestratord.core.facts.task_log import FIRST_EPOCH, Cursor
from orchestratord.runtime.task_streams import TaskStream, TaskStreams

REQUEST = TaskRequest("task-1", "coder", b"", "digest", 1, durable=True)
EPOCH = 1_700_000_000_000
"""Of the orchestrator's start before this one: the task started over then, and was shown."""


def restored() -> tuple[TaskStreams, TaskStream]:
    streams = TaskStreams()
    stream = streams.restore(REQUEST, datetime.now(UTC), EPOCH + 1, ())
    stream.lose_sight()
    return streams, stream


def entries(begin: int, end: int) -> list[log_entry_pb2.LogEntry]:
    return [log_entry_pb2.LogEntry(seq=seq, token_ids=[seq], text="a") for seq in range(begin, end)]


def test_a_reader_of_a_later_epoch_is_told_a_reset_where_a_run_of_the_first_one_is_found() -> None:
    """The run was cut off during the start before, when its task started over; both runs are there at this start."""
    streams, stream = restored()
    stream.is_found("attempt-of-before", FIRST_EPOCH, 3)
    streams.begin_attempt("task-1", "attempt-of-before")
    stream.append("attempt-of-before", entries(0, 3))
    with pytest.raises(InvalidArgument) as told:
        stream.resume_at(Cursor(EPOCH, 2, 7))
    assert told.value.reason is Reason.STREAM_RESET


def test_a_reader_is_told_a_reset_when_the_run_that_was_found_is_lost_before_it_told_its_output() -> None:
    streams, stream = restored()
    stream.is_found("attempt-of-before", EPOCH, 500)
    streams.begin_attempt("task-1", "attempt-of-before")
    streams.end_attempt("attempt-of-before")  # as CountLostOutput does
    with pytest.raises(InvalidArgument) as told:
        stream.resume_at(Cursor(EPOCH, 400, 7))
    assert told.value.reason is Reason.STREAM_RESET


def test_a_cursor_of_what_another_attempt_replaced_is_answered() -> None:
    streams, stream = restored()
    stream.is_found("old", EPOCH, 500)
    streams.begin_attempt("task-1", "old")
    streams.begin_attempt("task-1", "new")  # the old one is out of reach
    stream.append("new", entries(0, 3))
    streams.end_attempt("old")
    with pytest.raises(InvalidArgument):
        stream.resume_at(Cursor(EPOCH, 400, 7))
