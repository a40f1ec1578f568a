"""What is kept of a task that has ended, for as long as it is: little, and nothing that only a running one needs.

`tests/chaos/test_memory_of_tasks.py` has the figure of the whole process. These are the same each time.
"""

import asyncio
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from llama_orch.v2 import log_entry_pb2, task_event_pb2
from llorch.finish_reason import FinishReason
from orchestratord.core import effects
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskEnd, TaskRequest
from orchestratord.runtime.task_streams import TaskStreams
from support.two_workers import start, two_workers

ADMITTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
ENTRIES = 12
END = TaskEnd(RunResult((ChoiceEnd(0, FinishReason.EOS, ENTRIES),), tokens_out=ENTRIES), 0, 0)
STREAMS = 500
MOST_OF_A_STREAM = 1800
"""Bytes, with 12 tokens and two notes, and without the request, which is the brain's."""


def test_the_stream_of_an_ended_task_keeps_the_very_request_that_the_brain_keeps() -> None:
    driver, _ = two_workers()
    task_id, run = start(driver)
    driver.finish_attempt(run.attempt_id)
    streams = TaskStreams()
    streams.open(run.request, 0, ADMITTED_AT)
    appended = driver.only(effects.AppendTerminal)
    streams.end(appended.request, appended.terminal)
    assert streams.get(task_id).request is driver.task(task_id).request


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_an_ended_stream_that_was_read_takes_little_beside_its_output() -> None:
    streams = TaskStreams()
    requests = [request(number) for number in range(STREAMS + 1)]
    live(streams, requests.pop())  # what comes with the first one is no task's
    before, _ = tracemalloc.get_traced_memory()
    for each in requests:
        live(streams, each)
    assert (tracemalloc.get_traced_memory()[0] - before) / STREAMS <= MOST_OF_A_STREAM


def request(number: int) -> TaskRequest:
    return TaskRequest(task_id=f"task-{number}", model="coder", payload=b"", content_digest="", seed=5)


def live(streams: TaskStreams, request: TaskRequest) -> None:
    """From the beginning to the end, beside a reader that comes and goes."""
    attempt_id = f"attempt-of-{request.task_id}"
    streams.open(request, 0, ADMITTED_AT)
    stream = streams.begin_attempt(request.task_id, attempt_id)
    read = asyncio.Event()
    stream.watch(read.set)
    stream.note(task_event_pb2.Placed(worker_id="worker-1", attempt=1))
    stream.note(task_event_pb2.Narration(text="the model is loaded"))
    for seq in range(ENTRIES):
        stream.append(attempt_id, [log_entry_pb2.LogEntry(seq=seq, token_ids=[seq], text="word ")])
    streams.end_attempt(attempt_id)
    streams.end(request, END)
    stream.unwatch(read.set)
