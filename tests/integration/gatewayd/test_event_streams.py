"""Server-sent events: shapes, resume, errors before and after the first event, and who notices an end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewayd import event_stream
from gatewayd.http import limits
from llama_orch.v2 import fleet_service_pb2, task_event_pb2
from llama_orch.v2 import task_service_pb2 as tasks
from llama_orch.v2.task_event_pb2 import Started, TaskEvent
from llorch.errors import InvalidArgument, NotFound, Reason, Unavailable
from support.cuttable_line import cuttable

from .conftest import RunningGateway, StartGateway
from .fake_orchestrator import FakeOrchestrator
from .sse_reader import SseReader

STARTED = tasks.StreamTaskResponse(
    event=TaskEvent(task_id="t1", cursor="1.0", started=Started(queue_position=0, model="m", seed=2**63))
)
END = tasks.StreamTaskResponse(
    event=TaskEvent(
        task_id="t1",
        cursor="1.9",
        end=task_event_pb2.End(
            choices=[task_event_pb2.ChoiceEnd(finish_reason=task_event_pb2.FINISH_REASON_EOS)], tokens_out=2
        ),
    )
)
HEARTBEAT = tasks.StreamTaskResponse(event=TaskEvent(heartbeat=task_event_pb2.Heartbeat()))
EVENTS = "/v2/tasks/t1/events"
READERS_THAT_COME_BACK: list[tuple[str, dict[str, str]]] = [
    (EVENTS, {"Last-Event-ID": "1.4"}),
    (f"{EVENTS}?after=1.4", {}),
    (f"{EVENTS}?after=1.2", {"Last-Event-ID": "1.4"}),
]
BODY = b'{"model": "m", "generate": {"prompt": "hi"}}'

pytestmark = pytest.mark.parametrize("orchestrator", [True, False], ids=["delivered", "called"], indirect=True)
"""Over a delivery, and with a call for each reader, what clients see is the same."""


def token(index: int, text: str) -> tasks.StreamTaskResponse:
    tokens = task_event_pb2.Tokens(index=index, count=1, text=text)
    return tasks.StreamTaskResponse(event=TaskEvent(cursor=f"1.{index + 1}", tokens=tokens))


async def test_events_have_type_cursor_and_published_shape(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamTask", STARTED, token(0, "a\n\ndata: x"), HEARTBEAT, token(1, "🙂"), END)
    stream = await SseReader.open(gateway.address, EVENTS)
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-cache"
    assert stream.headers["x-accel-buffering"] == "no"
    assert stream.headers["x-correlation-id"]
    events = await stream.events()
    await stream.close()
    assert [event.type for event in events] == ["started", "token", "token", "end"]
    assert [event.id for event in events] == ["1.0", "1.1", "1.2", "1.9"]
    assert events[0].data == {
        "type": "started",
        "task_id": "t1",
        "queue_position": 0,
        "model": "m",
        "seed": "9223372036854775808",
    }
    assert events[1].data == {"type": "token", "t": "a\n\ndata: x", "i": 0, "n": 1}
    assert events[2].data["t"] == "🙂"
    assert events[3].data["finish_reason"] == "eos"


@pytest.mark.req("GATE-4002")
@pytest.mark.parametrize(
    ("target", "headers", "after"),
    [
        (EVENTS, {}, ""),
        (f"{EVENTS}?after=1.4", {}, "1.4"),
        (EVENTS, {"Last-Event-ID": "1.5"}, "1.5"),
        (f"{EVENTS}?after=1.4", {"Last-Event-ID": "1.5"}, "1.5"),
    ],
)
async def test_a_stream_resumes_after_the_newest_cursor_told(
    orchestrator: FakeOrchestrator,
    gateway: RunningGateway,
    target: str,
    headers: dict[str, str],
    after: str,
) -> None:
    orchestrator.stream("StreamTask", STARTED, END)
    stream = await SseReader.open(gateway.address, target, headers)
    await stream.events()
    await stream.close()
    assert orchestrator.requests["StreamTask"].after == after


async def test_generate_submits_and_streams_in_one_request(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("Generate", tasks.GenerateResponse(event=STARTED.event))
    stream = await SseReader.open(gateway.address, "/v2/generate", body=BODY)
    assert [event.type for event in await stream.events()] == ["started"]
    await stream.close()
    assert orchestrator.requests["Generate"].task.generate.prompt == "hi"


async def test_an_error_before_the_first_event_is_an_http_status(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    async def refuse(_request: Any, _context: Any) -> None:
        raise NotFound(Reason.TASK_NOT_FOUND, "no task t1")

    orchestrator.on("StreamTask", refuse)
    answer = await gateway.client.get(EVENTS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "TASK_NOT_FOUND")


async def test_an_error_after_the_first_event_is_the_last_event(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    async def break_off(_request: Any, context: Any) -> None:
        await context.write(tasks.GenerateResponse(event=STARTED.event))
        raise Unavailable(Reason.SLOW_READER, "not read", retry_after_ms=10)

    orchestrator.on("Generate", break_off)
    stream = await SseReader.open(gateway.address, "/v2/generate", body=BODY)
    events = await stream.events()
    await stream.close()
    assert [event.type for event in events] == ["started", "error"]
    assert events[1].id == ""
    assert events[1].data == {
        "type": "error",
        "code": "SLOW_READER",
        "message": "not read",
        "retryable": True,
        "retry_after_ms": 10,
    }


async def test_a_bad_body_of_a_stream_is_an_http_status(gateway: RunningGateway) -> None:
    answer = await gateway.client.post("/v2/generate", content=b'{"model": "m",}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "MALFORMED_REQUEST")


@pytest.mark.req("GATE-4002")
@pytest.mark.parametrize(
    ("error", "retry_ms"),
    [
        (Unavailable(Reason.DRAINING, "this server is shutting down", retry_after_ms=1700), 1700),
        (Unavailable(Reason.DRAINING, "this server is shutting down", retry_after_ms=10), 1000),
        (Unavailable(Reason.SLOW_READER, "not read"), 1000),
    ],
)
async def test_readers_of_a_task_are_told_to_come_back_where_their_call_broke(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway, error: Unavailable, retry_ms: int
) -> None:
    async def break_off(_request: Any, context: Any) -> None:
        await context.write(STARTED)
        raise error

    orchestrator.on("StreamTask", break_off)
    gateway = await start_gateway(reattach_s=0)
    stream = await SseReader.open(gateway.address, EVENTS)
    assert [event.type for event in await stream.events()] == ["started"]
    await stream.close()
    assert stream.comments == [f": {error.reason}: {error.message}\nretry: {retry_ms}"]


async def test_readers_of_a_task_are_told_to_come_back_when_the_orchestrator_ends(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    orchestrator.stream("StreamTask", STARTED, then_wait=True)
    gateway = await start_gateway(reattach_s=0)
    stream = await SseReader.open(gateway.address, EVENTS)
    await stream.events(1)
    await orchestrator.stop()
    assert await stream.events() == []
    await stream.close()
    assert stream.comments[-1].endswith("\nretry: 1000")


async def test_readers_of_a_task_are_told_to_come_back_when_the_orchestrator_is_gone_without_a_word(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    """What a killed orchestrator looks like."""
    orchestrator.stream("StreamTask", STARTED, then_wait=True)
    async with cuttable(orchestrator.address) as line:
        gateway = await start_gateway(orchestrator=line.address, reattach_s=0)
        stream = await SseReader.open(gateway.address, EVENTS)
        await stream.events(1)
        cut_at = time.monotonic()
        line.cut()
        assert await stream.events() == []
        await stream.close()
    assert time.monotonic() - cut_at < 1
    (comment,) = stream.comments
    assert comment.startswith(": UPSTREAM_UNAVAILABLE: the gateway has no connection to the orchestrator any more")
    assert comment.endswith("\nretry: 1000")


async def test_an_answer_whose_task_is_lost_with_the_orchestrator_ends_with_an_error(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    orchestrator.stream("Generate", tasks.GenerateResponse(event=STARTED.event), then_wait=True)
    async with cuttable(orchestrator.address) as line:
        gateway = await start_gateway(orchestrator=line.address, reattach_s=0)
        stream = await SseReader.open(gateway.address, "/v2/generate", body=BODY)
        await stream.events(1)
        line.cut()
        events = await stream.events()
        await stream.close()
    assert [event.data["code"] for event in events] == ["UPSTREAM_UNAVAILABLE"]
    assert events[0].data["retryable"] is True
    assert "ask for it again" in events[0].data["message"]


async def test_a_reader_that_comes_back_while_the_orchestrator_is_away_is_told_to_come_again(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    """An EventSource that is answered with 503 never asks again."""
    await orchestrator.stop()
    for target, headers in READERS_THAT_COME_BACK:
        stream = await SseReader.open(gateway.address, target, headers)
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert await stream.events() == []
        await stream.close()
        assert stream.comments[-1].endswith("\nretry: 1000")
    first = await gateway.client.get(EVENTS)
    assert (first.status_code, first.json()["error"]["retryable"]) == (503, True)


async def test_a_reader_that_comes_back_to_a_full_gateway_is_told_to_come_again(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    """All readers come at once after a restart; an EventSource that is answered with 429 never asks again."""
    orchestrator.stream("StreamTask", STARTED, then_wait=True)
    gateway = await start_gateway(max_requests=1)
    held = await SseReader.open(gateway.address, EVENTS)
    await held.events(1)
    for target, headers in READERS_THAT_COME_BACK:
        stream = await SseReader.open(gateway.address, target, headers)
        assert (stream.status, await stream.events()) == (200, [])
        await stream.close()
        (comment,) = stream.comments
        assert comment.startswith(": TOO_MANY_CALLS: this gateway serves 1 requests already")
        assert comment.endswith("\nretry: 1000")
    for other in (EVENTS, "/v2/meta/capabilities", "/v1/models", "/nowhere"):
        answer = await gateway.client.get(other, headers={} if other == EVENTS else {"Last-Event-ID": "1.4"})
        assert answer.status_code == (404 if other == "/nowhere" else 429), other
    await held.close()


async def test_what_will_not_pass_is_told_to_a_reader_that_comes_back_as_to_any_other(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    async def refuse(_request: Any, _context: Any) -> None:
        raise NotFound(Reason.EXPIRED, "it is no longer kept")

    orchestrator.on("StreamTask", refuse)
    assert (await gateway.client.get(EVENTS, headers={"Last-Event-ID": "1.4"})).status_code == 404


async def test_a_reader_that_comes_back_to_output_that_was_started_over_begins_anew(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    async def reset(_request: Any, _context: Any) -> None:
        raise InvalidArgument(Reason.STREAM_RESET, "it was started over")

    orchestrator.on("StreamTask", reset)
    for target, headers in READERS_THAT_COME_BACK:
        stream = await SseReader.open(gateway.address, target, headers)
        (event,) = await stream.events()
        await stream.close()
        assert (event.type, event.id, event.retry_ms) == ("reset", "0.0", 1000)
        assert event.data == {"type": "reset", "code": "STREAM_RESET", "message": "it was started over"}


async def test_a_client_that_leaves_is_noticed_within_250_ms(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    for leave in (_hang_up, _reset):
        orchestrator.ended.clear()
        orchestrator.stream("StreamTask", STARTED, then_wait=True)
        stream = await SseReader.open(gateway.address, EVENTS)
        await stream.events(1)
        left_at = time.monotonic()
        await leave(stream)
        async with asyncio.timeout(5):
            await orchestrator.ended.wait()
        assert time.monotonic() - left_at < 0.25


async def test_a_client_that_leaves_before_the_first_event_is_noticed(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    entered = asyncio.Event()

    async def silent(_request: Any, _context: Any) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            orchestrator.ended.set()

    orchestrator.on("StreamTask", silent)
    _, writer = await asyncio.open_connection(*gateway.address.split(":"))
    writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await entered.wait()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(5):
        await orchestrator.ended.wait()


@pytest.mark.req("GATE-4002")
async def test_a_silent_stream_shows_that_it_lives(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_EVERY_S", 0.05)
    monkeypatch.setattr(event_stream, "FIRST_EVENT_WITHIN_S", 0.05)
    release = asyncio.Event()

    async def speak_late(_request: Any, context: Any) -> None:
        await release.wait()
        await context.write(STARTED)

    orchestrator.on("StreamTask", speak_late)
    stream = await SseReader.open(gateway.address, EVENTS)
    reading = asyncio.create_task(stream.events())
    while len(stream.comments) < 2:
        await asyncio.wait({reading}, timeout=0.01)
    release.set()
    assert [event.type for event in await reading] == ["started"]
    await stream.close()
    assert set(stream.comments) == {": keep-alive"}


async def test_a_gateway_that_shuts_down_tells_its_streams(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamTask", STARTED, then_wait=True)
    orchestrator.stream("Generate", tasks.GenerateResponse(event=STARTED.event), then_wait=True)
    stream = await SseReader.open(gateway.address, EVENTS)
    answer = await SseReader.open(gateway.address, "/v2/generate", body=BODY)
    await stream.events(1)
    await answer.events(1)
    stopped_at = time.monotonic()
    gateway.stop.set()
    assert await stream.events() == []
    assert stream.comments[-1].endswith("\nretry: 1000")
    (error,) = await answer.events()
    assert (error.data["code"], error.data["retryable"]) == ("DRAINING", True)
    await stream.close()
    await answer.close()
    await gateway.task
    assert time.monotonic() - stopped_at < 2


@asynccontextmanager
async def _stalled_client(orchestrator: FakeOrchestrator, address: str) -> AsyncIterator[None]:
    """A client that asked for an endless stream and takes none of it, once all buffers on the way are full."""
    written = 0

    async def flood(_request: Any, context: Any) -> None:
        nonlocal written
        try:
            while True:
                await context.write(token(0, "x" * 10_000))
                written += 1
        finally:
            orchestrator.ended.set()

    orchestrator.on("StreamTask", flood)
    reader, writer = await asyncio.open_connection(*address.split(":"), limit=1024)
    writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readline()
    try:
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.1)
        yield
    finally:
        writer.transport.abort()


async def test_a_client_that_takes_nothing_does_not_hold_up_the_shutdown(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    async with _stalled_client(orchestrator, gateway.address):
        stopped_at = time.monotonic()
        gateway.stop.set()
        await gateway.task
        assert time.monotonic() - stopped_at < 4


async def test_a_client_that_takes_nothing_is_disconnected(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STALLED_S", 0.5)
    monkeypatch.setattr(limits, "LOOK_EVERY_S", 0.05)
    gateway = await start_gateway()
    async with _stalled_client(orchestrator, gateway.address), asyncio.timeout(10):
        await orchestrator.ended.wait()


async def test_other_streams_are_messages_in_protobufs_json(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamWorkerLog", fleet_service_pb2.StreamWorkerLogResponse(lines=["a", "b"]))
    stream = await SseReader.open(gateway.address, "/v2/workers/w1/log?follow=true&tail_lines=5")
    events = await stream.events()
    await stream.close()
    assert [(event.type, event.data) for event in events] == [("message", {"lines": ["a", "b"]})]
    asked = orchestrator.requests["StreamWorkerLog"]
    assert (asked.worker_id, asked.follow, asked.tail_lines) == ("w1", True, 5)


async def test_a_stream_without_events_ends_in_order(orchestrator: FakeOrchestrator, gateway: RunningGateway) -> None:
    orchestrator.stream("StreamTask")
    stream = await SseReader.open(gateway.address, EVENTS)
    assert (stream.status, await stream.events()) == (200, [])
    await stream.close()


async def test_many_readers_at_once_each_get_everything(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamTask", STARTED, *(token(i, f"{i} ") for i in range(200)), END)

    async def read() -> str:
        stream = await SseReader.open(gateway.address, EVENTS)
        events = await stream.events()
        await stream.close()
        return "".join(event.data["t"] for event in events if event.type == "token")

    expected = "".join(f"{i} " for i in range(200))
    assert await asyncio.gather(*(read() for _ in range(16))) == [expected] * 16


async def test_an_error_that_comes_late_keeps_what_came_before(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    async def tokens_then_error(_request: Any, context: Any) -> None:
        for index in range(50):
            await context.write(token(index, "x"))
        raise InvalidArgument(Reason.INVALID_CURSOR, "no")

    orchestrator.on("StreamTask", tokens_then_error)
    stream = await SseReader.open(gateway.address, EVENTS)
    events = await stream.events()
    await stream.close()
    assert [event.type for event in events] == ["token"] * 50 + ["error"]
    assert events[-1].data["retryable"] is False


async def _hang_up(stream: SseReader) -> None:
    await stream.close()


async def _reset(stream: SseReader) -> None:
    stream.writer.transport.abort()
