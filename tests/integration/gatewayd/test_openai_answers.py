"""Answers of OpenAI's API, whole and in pieces: what a task's events become."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from gatewayd import event_stream
from llama_orch.v2 import error_reason_pb2, log_entry_pb2, task_event_pb2
from llama_orch.v2 import task_service_pb2 as tasks
from llama_orch.v2.task_event_pb2 import ChoiceEnd, End, Error, Placed, Started, TaskEvent, Tokens
from llorch.errors import NotFound, Reason, ResourceExhausted, Unavailable

from .conftest import RunningGateway, StartGateway
from .fake_orchestrator import FakeOrchestrator

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi"}
HEAD = (
    TaskEvent(task_id="task-1", started=Started(model="m", seed=7)),
    TaskEvent(placed=Placed(engine="llama_cpp", engine_version="0.3.36", cpu=True)),
)


def say(text: str, choice: int = 0, **more: Any) -> TaskEvent:
    return TaskEvent(tokens=Tokens(count=1, choice=choice, text=text, **more))


def end(*reasons: str, **more: Any) -> TaskEvent:
    choices = [
        ChoiceEnd(choice=number, finish_reason=task_event_pb2.FinishReason.Value(f"FINISH_REASON_{reason}"))
        for number, reason in enumerate(reasons or ("EOS",))
    ]
    return TaskEvent(end=End(choices=choices, tokens_in=5, tokens_out=3, cached_tokens=4, **more))


def fail(reason: str, retryable: bool = False) -> TaskEvent:
    number = error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
    field = "generate.top_logprobs"
    return TaskEvent(error=Error(reason=number, message=f"{field}: no", retryable=retryable, field=field))


def answer_with(orchestrator: FakeOrchestrator, *events: TaskEvent, then_wait: bool = False) -> None:
    shown = (tasks.GenerateResponse(event=event) for event in (*HEAD, *events))
    orchestrator.stream("Generate", *shown, then_wait=then_wait)


async def stream(client: httpx.AsyncClient, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[Any]:
    """What stands behind each `data:`, the last of which is `[DONE]` or an error."""
    answer = await client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.mark.req("GATE-4003")
async def test_a_whole_chat_answer(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    answer_with(orchestrator, say("Hello"), say(" you"), end())
    before = int(time.time())
    response = await client.post("/v1/chat/completions", json=CHAT, headers={"X-Correlation-Id": "mine"})
    assert response.status_code == 200
    assert response.headers["x-correlation-id"] == "mine"
    assert orchestrator.metadata["Generate"]["x-correlation-id"] == "mine"
    answer = response.json()
    assert before <= answer.pop("created") <= time.time()
    message = {"role": "assistant", "content": "Hello you", "refusal": None}
    assert answer == {
        "id": "chatcmpl-task-1",
        "object": "chat.completion",
        "model": "m",
        "system_fingerprint": "llama_cpp-0.3.36-cpu",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


@pytest.mark.req("GATE-4003")
async def test_a_streamed_chat_answer(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    answer_with(orchestrator, say("Hello"), say(" you\n\ndata: x"), end())
    *chunks, done = await stream(client, CHAT)
    assert done == "[DONE]"
    for chunk in chunks:
        assert (chunk["id"], chunk["object"], chunk["model"]) == ("chatcmpl-task-1", "chat.completion.chunk", "m")
        assert chunk["system_fingerprint"] == "llama_cpp-0.3.36-cpu"
        assert "usage" not in chunk
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hello"},
        {"content": " you\n\ndata: x"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]


async def test_what_has_no_place_in_an_answer_is_left_out(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    """Also a second attempt: the answer goes on, and is marked with what goes on with it."""
    aside = (
        TaskEvent(heartbeat=task_event_pb2.Heartbeat()),
        TaskEvent(metrics=task_event_pb2.Metrics(queue_depth=1)),
        TaskEvent(narration=task_event_pb2.Narration(text="Loading.")),
        TaskEvent(placed=Placed(attempt=2, engine="sim", engine_version="1", simulated=True)),
    )
    answer_with(orchestrator, say("a"), *aside, say("b"), end())
    *chunks, _done = await stream(client, CHAT)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "a", "b", None]
    assert [chunk["system_fingerprint"] for chunk in chunks][1:3] == ["llama_cpp-0.3.36-cpu", "sim-1-simulated"]


async def test_usage_comes_last_where_it_is_asked_for(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    answer_with(orchestrator, say("a"), end())
    *chunks, last, _done = await stream(client, {**CHAT, "stream_options": {"include_usage": True}})
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert last["usage"]["total_tokens"] == 8


async def test_choices_keep_apart(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    events = (say("a"), say("x", 1), say("b"), say("y", 1), end("LENGTH", "STOP_STRING"))
    answer_with(orchestrator, *events)
    choices = (await client.post("/v1/chat/completions", json=CHAT)).json()["choices"]
    assert [(each["index"], each["message"]["content"], each["finish_reason"]) for each in choices] == [
        (0, "ab", "length"),
        (1, "xy", "stop"),
    ]
    answer_with(orchestrator, *events)
    *chunks, _done = await stream(client, CHAT)
    pieces = [(each["index"], each["delta"].get("content")) for chunk in chunks for each in chunk["choices"]]
    assert pieces == [(0, ""), (0, "a"), (1, ""), (1, "x"), (0, "b"), (1, "y"), (0, None), (1, None)]


async def test_an_answer_without_a_token_is_an_empty_one(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    answer_with(orchestrator, end())
    assert (await client.post("/v1/chat/completions", json=CHAT)).json()["choices"][0]["message"]["content"] == ""
    answer_with(orchestrator, end())
    *chunks, _done = await stream(client, CHAT)
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks] == ["assistant", None]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("EOS", "stop"),
        ("STOP_STRING", "stop"),
        ("LENGTH", "length"),
        ("CONTEXT_FULL", "length"),
        ("TOOL_CALLS", "tool_calls"),
    ],
)
async def test_every_end_has_a_finish_reason(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient, reason: str, shown: str
) -> None:
    answer_with(orchestrator, say("a"), end(reason))
    answer = (await client.post("/v1/chat/completions", json=CHAT)).json()
    assert answer["choices"][0]["finish_reason"] == shown


@pytest.mark.parametrize(
    ("reason", "status", "code"), [("DEADLINE", 504, "deadline_passed"), ("CANCELLED", 400, "cancelled")]
)
async def test_an_answer_that_was_broken_off_is_an_error(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient, reason: str, status: int, code: str
) -> None:
    answer_with(orchestrator, say("a"), end(reason))
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-should-retry"] == "false"
    answer_with(orchestrator, say("a"), end(reason))
    assert (await stream(client, CHAT))[-1]["error"]["code"] == code


async def test_tool_calls_and_thoughts(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    def call(index: int, arguments: str, **first: str) -> TaskEvent:
        piece = log_entry_pb2.ToolCallDelta(index=index, arguments=arguments, **first)
        return TaskEvent(tokens=Tokens(count=1, tool_call=piece))

    events = (
        TaskEvent(tokens=Tokens(count=1, reasoning="Hm")),
        TaskEvent(tokens=Tokens(count=1, reasoning="m.")),
        call(0, "", call_id="c0", name="look"),
        call(0, '{"at":'),
        call(0, "1}"),
        call(1, "{}", call_id="c1", name="stop"),
        end("TOOL_CALLS"),
    )
    answer_with(orchestrator, *events)
    message = (await client.post("/v1/chat/completions", json=CHAT)).json()["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "Hmm.",
        "tool_calls": [
            {"id": "c0", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
            {"id": "c1", "type": "function", "function": {"name": "stop", "arguments": "{}"}},
        ],
    }
    answer_with(orchestrator, *events)
    *chunks, _done = await stream(client, CHAT)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[1:4] == [
        {"reasoning_content": "Hm"},
        {"reasoning_content": "m."},
        {"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": {"name": "look", "arguments": ""}}]},
    ]
    assert deltas[4] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"at":'}}]}


def probabilities(text: str) -> log_entry_pb2.PositionLogprobs:
    chosen = log_entry_pb2.TokenLogprob(token_id=1, text=text, logprob=-0.1, raw=text.encode())
    unlikely = log_entry_pb2.TokenLogprob(token_id=2, text="z", logprob=float("-inf"), raw=b"z")
    return log_entry_pb2.PositionLogprobs(chosen=chosen, top=[chosen, unlikely])


async def test_log_probabilities_of_a_chat(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    events = (say("é", logprobs=[probabilities("é")]), end())
    answer_with(orchestrator, *events)
    choice = (await client.post("/v1/chat/completions", json=CHAT)).json()["choices"][0]
    position = {"token": "é", "logprob": -0.1, "bytes": [195, 169]}
    other = {"token": "z", "logprob": -9999.0, "bytes": [122]}
    shown = {"content": [{**position, "top_logprobs": [position, other]}], "refusal": None}
    assert choice["logprobs"] == shown
    answer_with(orchestrator, *events)
    chunks = await stream(client, CHAT)
    assert chunks[1]["choices"][0]["logprobs"] == shown


async def test_a_completion_whole_and_streamed(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    events = (say("ab", logprobs=[probabilities("ab")]), say("c", logprobs=[probabilities("c")]), end("LENGTH"))
    answer_with(orchestrator, *events)
    answer = (await client.post("/v1/completions", json=COMPLETION)).json()
    assert (answer["id"], answer["object"]) == ("cmpl-task-1", "text_completion")
    logprobs = {
        "tokens": ["ab", "c"],
        "token_logprobs": [-0.1, -0.1],
        "top_logprobs": [{"ab": -0.1, "z": -9999.0}, {"c": -0.1, "z": -9999.0}],
        "text_offset": [0, 2],
    }
    assert answer["choices"] == [{"index": 0, "text": "abc", "logprobs": logprobs, "finish_reason": "length"}]
    answer_with(orchestrator, *events)
    *chunks, done = await stream(client, COMPLETION, "/v1/completions")
    assert done == "[DONE]"
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(each["text"], each["finish_reason"]) for each in choices] == [("ab", None), ("c", None), ("", "length")]
    assert choices[1]["logprobs"]["text_offset"] == [2]


async def test_a_deterministic_answer_brings_its_receipt(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    receipt = task_event_pb2.DeterminismReceipt(seed=7, token_digest="ab")
    answer_with(orchestrator, say("a"), end(receipt=receipt))
    answer = (await client.post("/v1/chat/completions", json=CHAT)).json()
    assert (answer["receipt"]["token_digest"], answer["receipt"]["seed"]) == ("ab", "7")
    answer_with(orchestrator, say("a"), end(receipt=receipt))
    *_chunks, last, _done = await stream(client, CHAT)
    assert (last["choices"], last["receipt"]["token_digest"]) == ([], "ab")


@pytest.mark.parametrize(
    ("reason", "retryable", "status", "kind", "code"),
    [
        ("UNSUPPORTED_OPTION", False, 400, "invalid_request_error", "unsupported_option"),
        ("PROMPT_TOO_LONG", False, 400, "invalid_request_error", "context_length_exceeded"),
        ("DROPPED_FROM_QUEUE", True, 429, "rate_limit_error", "dropped_from_queue"),
        ("WORKER_LOST", True, 503, "server_error", "worker_lost"),
        ("MODEL_LOAD_FAILED", False, 500, "server_error", "model_load_failed"),
        ("UNSPECIFIED", False, 500, "server_error", "internal"),
    ],
)
async def test_a_task_that_fails_before_its_first_token_is_a_status(
    orchestrator: FakeOrchestrator,
    client: httpx.AsyncClient,
    reason: str,
    retryable: bool,
    status: int,
    kind: str,
    code: str,
) -> None:
    for wants_stream in (False, True):
        answer_with(orchestrator, fail(reason, retryable))
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": wants_stream})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error == {"message": "top_logprobs: no", "type": kind, "param": "top_logprobs", "code": code}
        assert answer.headers["x-should-retry"] == str(retryable).lower()


async def test_a_failure_in_mid_stream_is_its_last_word(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    answer_with(orchestrator, say("a"), fail("WORKER_LOST", retryable=True))
    *_chunks, last = await stream(client, CHAT)
    assert last["error"]["code"] == "worker_lost"


async def test_a_connection_that_breaks_in_mid_stream_and_is_not_looked_for_is_told(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    client = (await start_gateway(reattach_s=0)).client

    async def break_off(_request: Any, context: Any) -> None:
        for event in (*HEAD, say("a")):
            await context.write(tasks.GenerateResponse(event=event))
        raise Unavailable(Reason.UPSTREAM_UNAVAILABLE, "gone")

    orchestrator.on("Generate", break_off)
    assert (await stream(client, CHAT))[-1]["error"]["type"] == "server_error"
    whole = await client.post("/v1/chat/completions", json=CHAT)
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "upstream_unavailable")


async def test_a_stream_without_an_end_is_no_answer(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    answer_with(orchestrator, say("a"))
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 503


async def test_refusals_come_in_openais_envelope(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    refusals = iter(
        [
            NotFound(Reason.MODEL_NOT_FOUND, 'no model "m"; the nearest name is "n"'),
            ResourceExhausted(Reason.QUEUE_FULL, "full", retry_after_ms=1200),
        ]
    )

    async def refuse(_request: Any, _context: Any) -> None:
        raise next(refusals)

    orchestrator.on("Generate", refuse)
    unknown = await client.post("/v1/chat/completions", json=CHAT)
    assert unknown.status_code == 404
    assert unknown.json() == {
        "error": {
            "message": 'no model "m"; the nearest name is "n"',
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    }
    full = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert (full.status_code, full.headers["retry-after"], full.headers["x-should-retry"]) == (429, "2", "true")
    assert full.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("wants_stream", ["true", "false"])
async def test_a_client_that_leaves_ends_the_call_within_250_ms(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, wants_stream: str
) -> None:
    written = asyncio.Event()

    async def speak_and_wait(_request: Any, context: Any) -> None:
        try:
            for event in (*HEAD, say("a")):
                await context.write(tasks.GenerateResponse(event=event))
            written.set()
            await asyncio.Event().wait()
        finally:
            orchestrator.ended.set()

    orchestrator.on("Generate", speak_and_wait)
    body = json.dumps(CHAT)[:-1] + f', "stream": {wants_stream}}}'
    _, writer = await asyncio.open_connection(*gateway.address.split(":"))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    await written.wait()
    left_at = time.monotonic()
    writer.close()
    async with asyncio.timeout(5):
        await orchestrator.ended.wait()
    assert time.monotonic() - left_at < 0.25
    await writer.wait_closed()


async def test_a_long_wait_is_bridged_by_comments(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_EVERY_S", 0.05)
    monkeypatch.setattr(event_stream, "FIRST_EVENT_WITHIN_S", 0.05)
    release = asyncio.Event()

    async def speak_late(_request: Any, context: Any) -> None:
        await release.wait()
        for event in (*HEAD, say("a"), end()):
            await context.write(tasks.GenerateResponse(event=event))

    orchestrator.on("Generate", speak_late)
    async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        lines = [line async for line in _releasing(answer, release)]
    assert lines[0] == ": keep-alive"
    assert lines[-1] == "data: [DONE]"


async def _releasing(answer: httpx.Response, release: asyncio.Event) -> Any:
    async for line in answer.aiter_lines():
        if line:
            release.set()
            yield line
