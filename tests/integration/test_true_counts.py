"""What a task came to is told and counted as it was, however it ended."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llama_orch.v2 import session_service_pb2, session_service_pb2_grpc, task_event_pb2, task_pb2, task_service_pb2
from llorch.errors import Reason, ResourceExhausted
from llorch.rpc.client import call
from support.whole_system import CALL_S, CRASH, FAIL, WholeSystem, task, wait_until, whole_system

PROMPT = "a prompt of some words"
TOKENS_IN = 6
FAILS_AT, LONG = 5, 4000


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path) as started:
        yield started


async def tokens_of_metrics(system: WholeSystem) -> tuple[int, int]:
    text = (await system.http.get("/v2/meta/metrics")).text
    found = {
        sample.labels["direction"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "llorch_tokens_total"
    }
    return found.get("in", 0), found.get("out", 0)


async def tokens_of_session(system: WholeSystem, session_id: str) -> int:
    sessions = session_service_pb2_grpc.SessionServiceStub(system.channel)
    asked = session_service_pb2.GetSessionRequest(session_id=session_id)
    return (await call(sessions.GetSession, asked, timeout_s=CALL_S)).session.tokens


async def some_output(system: WholeSystem, task_id: str) -> None:
    async def is_there() -> bool:
        return (await system.task(task_id)).log_entries >= 3

    await wait_until(is_there)


def shown_tokens(events: list[task_event_pb2.TaskEvent]) -> int:
    return sum(event.tokens.count for event in events if event.HasField("tokens"))


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("why", ["cancelled", "deadline"])
async def test_the_end_of_a_task_that_was_ended_early_has_its_counts_everywhere(
    system: WholeSystem, why: str, choices: int
) -> None:
    asked = task(PROMPT, max_tokens=LONG, session_id="chat")
    asked.generate.n = choices
    if why == "deadline":
        await system.generate(task())  # so that the model is loaded
        asked.deadline_ms = 500
    before = await tokens_of_metrics(system)
    task_id = await system.submit(asked)
    if why == "cancelled":
        await some_output(system, task_id)
        await call(system.tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id), timeout_s=CALL_S)
    events = await system.stream(task_id)
    end = events[-1].end
    assert end.tokens_out == shown_tokens(events) == sum(choice.tokens_out for choice in end.choices)
    reason = f"FINISH_REASON_{why.upper()}"
    assert [task_event_pb2.FinishReason.Name(choice.finish_reason) for choice in end.choices] == [reason] * choices
    assert all(choice.tokens_out for choice in end.choices)
    assert end.tokens_in == TOKENS_IN
    assert end.first_token_ms > 0
    assert 0 < end.decode_time_ms < 10_000
    assert (await system.task(task_id)).end == end
    sse = (await system.http.get(f"/v2/tasks/{task_id}/events")).text
    told = json.loads(sse.strip().rpartition("data: ")[2])
    assert (told["type"], told["tokens_in"], told["tokens_out"]) == ("end", TOKENS_IN, end.tokens_out)
    polled = (await system.http.get(f"/v2/tasks/{task_id}")).json()["task"]["end"]
    assert (polled["tokens_in"], polled["tokens_out"]) == (TOKENS_IN, end.tokens_out)
    tokens_in, tokens_out = await tokens_of_metrics(system)
    assert (tokens_in - before[0], tokens_out - before[1]) == (TOKENS_IN, end.tokens_out)
    assert await tokens_of_session(system, "chat") == TOKENS_IN + end.tokens_out


@pytest.mark.parametrize(("marker", "reason"), [(FAIL, "ENGINE_FAILED"), (CRASH, "QUARANTINED")])
async def test_what_a_task_used_that_failed_midway_is_counted(system: WholeSystem, marker: str, reason: str) -> None:
    await system.generate(task())
    before = await tokens_of_metrics(system)
    task_id = await system.submit(task(marker, session_id="chat"))
    events = await system.stream(task_id)
    failed = events[-1].error
    assert (Reason(reason).is_retryable, (await system.task(task_id)).error) == (failed.retryable, failed)
    assert shown_tokens(events) == FAILS_AT

    async def are_counted() -> bool:
        """Of a lost attempt right after its end."""
        return (await tokens_of_metrics(system))[1] - before[1] == FAILS_AT

    await wait_until(are_counted)
    tokens_in = (await tokens_of_metrics(system))[0] - before[0]
    assert tokens_in > 0
    assert await tokens_of_session(system, "chat") == tokens_in + FAILS_AT


async def test_a_cancelled_task_spends_the_quota_of_its_app(system: WholeSystem) -> None:
    made = await system.http.post("/v2/apps", json={"app": "aider", "max_tokens_per_minute": 30})
    as_aider = {"authorization": f"Bearer {made.json()['key']}"}
    asked = {"model": "sim", "generate": {"prompt": PROMPT, "max_tokens": LONG}}
    task_id = (await system.http.post("/v2/tasks", json=asked, headers=as_aider)).json()["task_id"]

    async def has_used_it_up() -> bool:
        return (await system.task(task_id)).log_entries >= 40

    await wait_until(has_used_it_up)
    await system.http.post(f"/v2/tasks/{task_id}/cancel", headers=as_aider)
    await system.stream(task_id)
    refused = await system.http.post("/v2/tasks", json=asked, headers=as_aider)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["retryable"]) == (429, "QUOTA_EXCEEDED", True)
    assert "retry-after" in refused.headers
    assert "policy_label" not in error
    assert "x-backpressure-policy" not in refused.headers


async def test_a_spent_budget_is_told_as_final(system: WholeSystem) -> None:
    asked = {
        "model": "sim",
        "session_id": "chat",
        "session_budget": {"turns": 1},
        "generate": {"prompt": PROMPT, "max_tokens": 3},
    }
    task_id = (await system.http.post("/v2/tasks", json=asked)).json()["task_id"]
    await system.stream(task_id)
    refused = await system.http.post("/v2/tasks", json=asked)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["retryable"]) == (429, "BUDGET_SPENT", False)
    assert not {"retry-after", "x-backpressure-policy"} & refused.headers.keys()
    chat = {"model": "sim", "session_id": "chat", "messages": [{"role": "user", "content": "x"}]}
    of_openai = await system.http.post("/v1/chat/completions", json=chat)
    assert (of_openai.status_code, of_openai.headers["x-should-retry"]) == (429, "false")
    with pytest.raises(ResourceExhausted) as over_grpc:
        await system.submit(task(session_id="chat"))
    assert (over_grpc.value.reason, over_grpc.value.retry_after_ms) == (Reason.BUDGET_SPENT, None)


async def test_metrics_events_tell_the_cache_of_this_prompt_alone(system: WholeSystem) -> None:
    """The simulated engine has no cache, so that nothing of a prompt can be warm there, whatever its session did."""
    for _ in range(2):
        events = await system.generate(task("word " * 20, max_tokens=600, session_id="chat"))
        metrics = [event.metrics for event in events if event.HasField("metrics")]
        assert metrics
        assert {event.kv_warm_tokens for event in metrics} == {0}
        assert events[-1].end.cached_tokens == 0


async def test_a_full_queue_is_told_with_its_policy(tmp_path: Path) -> None:
    async with whole_system(tmp_path, slots=1, queue_capacity=1) as system:
        running = await system.submit(task(max_tokens=LONG))
        await some_output(system, running)
        waiting = await system.submit(task())
        asked = {"model": "sim", "generate": {"prompt": "x"}}
        refused = await system.http.post("/v2/tasks", json=asked)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["policy_label"]) == (429, "QUEUE_FULL", "reject")
        assert refused.headers["x-backpressure-policy"] == "reject"
        for task_id in (waiting, running):
            await call(system.tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id), timeout_s=CALL_S)
        events = await asyncio.gather(system.stream(waiting), system.stream(running))
        assert [(end[-1].end.tokens_in, end[-1].end.tokens_out > 0) for end in events] == [(0, False), (2, True)]
        assert (await system.task(waiting)).state == task_pb2.TASK_STATE_CANCELLED
