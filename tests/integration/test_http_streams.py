"""The same tasks over HTTP and SSE."""

import json
from typing import Any

import pytest

from support.streams import check_sse
from support.whole_system import CRASH, WholeSystem
from worker_orcd.engines.sim.tokens import sim_text


def body(prompt: str = "hello", max_tokens: int = 8, **options: Any) -> dict[str, Any]:
    work = {"prompt": prompt, "max_tokens": max_tokens, "sampling": {"seed": 7}}
    return {"model": "sim", "generate": work} | options


async def events(
    system: WholeSystem, path: str, headers: dict[str, str] | None = None, send: dict[str, Any] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """(id, message) of every event of an SSE stream."""
    found: list[tuple[str, dict[str, Any]]] = []
    method = "GET" if send is None else "POST"
    async with system.http.stream(method, path, headers=headers, json=send) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        cursor = ""
        async for line in answer.aiter_lines():
            if line.startswith("id:"):
                cursor = line[3:].strip()
            elif line.startswith("data:"):
                found.append((cursor, json.loads(line[5:])))
    return found


@pytest.mark.req("GATE-4001", "ORCH-1001")
async def test_a_task_is_accepted_with_202_and_a_correlation_id(system: WholeSystem) -> None:
    answer = await system.http.post("/v2/tasks", json=body(), headers={"X-Correlation-Id": "mine-1"})
    assert answer.status_code == 202
    assert answer.headers["x-correlation-id"] == "mine-1"
    accepted = answer.json()
    assert accepted["correlation_id"] == "mine-1"
    assert accepted["queue_position"] == 0
    assert "predicted_start_ms" not in accepted, "what is not known is not told"


@pytest.mark.req("GATE-4002", "ORCH-1004")
async def test_events_come_in_their_published_shapes(system: WholeSystem) -> None:
    task_id = (await system.http.post("/v2/tasks", json=body(max_tokens=20))).json()["task_id"]
    messages = [message for _, message in await events(system, f"/v2/tasks/{task_id}/events")]
    assert check_sse(messages) == sim_text(7, 0, 20)
    kinds = {message["type"] for message in messages}
    assert {"started", "placed", "token", "end"} <= kinds
    placed = next(message for message in messages if message["type"] == "placed")
    assert placed["engine"] == "sim"
    end = messages[-1]
    assert (end["finish_reason"], end["tokens_out"]) == ("length", 20)


@pytest.mark.req("GATE-4002", "ORCH-1005")
async def test_a_stream_goes_on_after_last_event_id(system: WholeSystem) -> None:
    task_id = (await system.http.post("/v2/tasks", json=body(max_tokens=12))).json()["task_id"]
    path = f"/v2/tasks/{task_id}/events"
    whole = await events(system, path)
    tokens = [(cursor, message) for cursor, message in whole if message["type"] == "token"]
    cursor, last_seen = tokens[len(tokens) // 2]
    index = last_seen["i"] + last_seen["n"]
    for asked in ({"headers": {"Last-Event-ID": cursor}, "path": path}, {"path": f"{path}?after={cursor}"}):
        rest = [message for _, message in await events(system, **asked)]
        assert sim_text(7, 0, index) + check_sse(rest, first_index=index) == sim_text(7, 0, 12)


async def test_generate_over_http_streams_too(system: WholeSystem) -> None:
    messages = [message for _, message in await events(system, "/v2/generate", send=body(max_tokens=5))]
    assert check_sse(messages) == sim_text(7, 0, 5)


async def test_a_task_that_ends_its_workers_is_an_error_event_with_what_to_do(system: WholeSystem) -> None:
    messages = [m for _, m in await events(system, "/v2/generate", send=body(prompt=CRASH, max_tokens=50))]
    check_sse(messages)
    assert messages[-1]["code"] == "QUARANTINED"
    assert messages[-1]["retryable"] is False
    assert [message.get("lost") for message in messages if message["type"] == "placed"] == [None, "exit"]


@pytest.mark.req("ORCH-1023")
async def test_plain_routes_answer_with_the_names_of_the_contract(system: WholeSystem) -> None:
    state = (await system.http.get("/v2/state")).json()["state"]
    assert state["devices"][0]["device"]["name"] == "RTX 3090"
    models = (await system.http.get("/v2/catalog/models")).json()["models"]
    assert models[0]["spec"]["name"] == "sim"
    capabilities = (await system.http.get("/v2/meta/capabilities")).json()
    assert capabilities["api_version"] == "v2"
    assert "TaskService/Embed" not in capabilities["unimplemented"]


async def test_a_pull_is_a_stream_of_progress(system: WholeSystem) -> None:
    async with system.http.stream("POST", "/v2/catalog/pull", json={"source": "sim"}) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines()]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [(event["node_id"], event["progress"]["complete"]) for event in events] == [("garage", True)]
