"""Transcoding through a real socket: what comes in as HTTP reaches the orchestrator as the contract says."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody

from llama_orch.v2 import catalog_service_pb2 as catalog
from llama_orch.v2 import meta_service_pb2, placement_service_pb2, session_service_pb2, task_pb2
from llama_orch.v2 import task_service_pb2 as tasks
from llama_orch.v2.task_event_pb2 import Started, TaskEvent
from llorch.errors import InvalidArgument, NotFound, Reason, ResourceExhausted

from .conftest import RunningGateway, StartGateway
from .fake_orchestrator import FakeOrchestrator

WORK = {"model": "m", "generate": {"prompt": "hi", "max_tokens": 3}}


async def test_submitting_a_task_answers_202_with_zeros_printed(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    orchestrator.answer("SubmitTask", tasks.SubmitTaskResponse(task_id="task-1", correlation_id="c"))
    answer = await client.post("/v2/tasks", json=WORK)
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"task_id": "task-1", "correlation_id": "c", "queue_position": 0}
    task = orchestrator.requests["SubmitTask"].task
    assert (task.model, task.generate.prompt, task.generate.max_tokens) == ("m", "hi", 3)


async def test_path_variables_and_query_reach_the_request(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    orchestrator.answer("GetTask", tasks.GetTaskResponse())
    orchestrator.answer("ListTasks", tasks.ListTasksResponse())
    await client.get("/v2/tasks/task-1%2Fa")
    await client.get("/v2/tasks", params={"page_size": "7", "state": "TASK_STATE_QUEUED", "pageToken": "x"})
    assert orchestrator.requests["GetTask"].task_id == "task-1/a"
    listed = orchestrator.requests["ListTasks"]
    assert (listed.page_size, listed.state, listed.page_token) == (7, task_pb2.TASK_STATE_QUEUED, "x")


async def test_a_nested_path_variable_and_its_additional_binding(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    orchestrator.answer("SetAssignment", placement_service_pb2.SetAssignmentResponse())
    for path, body in (("/v2/assignments/a1", {}), ("/v2/assignments", {"assignment_id": "a1"})):
        assert (await client.put(path, json=body)).status_code == 200
        assert orchestrator.requests.pop("SetAssignment").assignment.assignment_id == "a1"
    contradiction = await client.put("/v2/assignments/a1", json={"assignment_id": "b"})
    assert contradiction.status_code == 400
    assert "assignment.assignment_id" in contradiction.json()["error"]["message"]


async def test_a_body_of_its_own_kind_is_answered_as_it_is(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    text = b"# TYPE up gauge\nup 1\n"
    body = HttpBody(content_type="text/plain; version=0.0.4", data=text)
    orchestrator.answer("GetMetrics", meta_service_pb2.GetMetricsResponse(body=body))
    answer = await client.get("/v2/meta/metrics")
    assert (answer.content, answer.headers["content-type"]) == (text, "text/plain; version=0.0.4")


async def test_an_empty_body_is_an_empty_request(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    orchestrator.answer("CancelTask", tasks.CancelTaskResponse())
    answer = await client.post("/v2/tasks/t1/cancel")
    assert answer.json() == {"outcome": "CANCEL_OUTCOME_UNSPECIFIED"}
    assert orchestrator.requests["CancelTask"].task_id == "t1"


async def test_an_empty_answer_is_an_empty_object(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    orchestrator.answer("DeleteSession", session_service_pb2.DeleteSessionResponse())
    assert (await client.delete("/v2/sessions/s")).json() == {}


async def test_a_refusal_keeps_its_reason_field_and_correlation_id(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    async def refuse(_request: Any, _context: Any) -> None:
        raise NotFound(Reason.TASK_NOT_FOUND, "no task t1")

    orchestrator.on("GetTask", refuse)
    answer = await client.get("/v2/tasks/t1", headers={"X-Correlation-Id": "mine-1"})
    assert answer.status_code == 404
    assert answer.headers["x-correlation-id"] == "mine-1"
    assert orchestrator.metadata["GetTask"]["x-correlation-id"] == "mine-1"
    assert answer.json()["error"] == {
        "code": "TASK_NOT_FOUND",
        "status": "NOT_FOUND",
        "message": "no task t1",
        "retryable": False,
        "correlation_id": "mine-1",
    }


async def test_a_full_queue_says_when_to_come_back(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    async def refuse(_request: Any, _context: Any) -> None:
        raise ResourceExhausted(Reason.QUEUE_FULL, "full", retry_after_ms=1200, metadata={"policy_label": "reject"})

    orchestrator.on("SubmitTask", refuse)
    answer = await client.post("/v2/tasks", json=WORK)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["x-backpressure-policy"] == "reject"
    error = answer.json()["error"]
    assert (error["retryable"], error["retry_after_ms"]) == (True, 1200)


async def test_violations_of_the_orchestrator_are_passed_on(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    async def refuse(_request: Any, _context: Any) -> None:
        from llorch.errors import invalid_field

        raise invalid_field("generate.max_tokens", "from 1 to 1048576 (got 0)")

    orchestrator.on("SubmitTask", refuse)
    error = (await client.post("/v2/tasks", json=WORK)).json()["error"]
    assert error["violations"] == [{"field": "generate.max_tokens", "description": "from 1 to 1048576 (got 0)"}]


async def test_what_is_not_done_yet_is_501(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v2/sessions")
    assert answer.status_code == 501
    assert answer.json()["error"]["code"] == "NOT_IMPLEMENTED"


async def test_a_dead_orchestrator_is_503_and_retryable(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(orchestrator="127.0.0.1:1")
    answer = await gateway.client.get("/v2/state")
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert (error["code"], error["retryable"]) == ("UPSTREAM_UNAVAILABLE", True)
    ready = await gateway.client.get("/readyz")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_readiness_follows_the_orchestrator(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz")).status_code == 200
    orchestrator.set_serving(False)
    assert (await client.get("/readyz")).status_code == 503


async def test_an_answer_that_takes_too_long_is_504(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    async def never(_request: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    orchestrator.on("GetTask", never)
    gateway = await start_gateway(call_timeout_s=0.1)
    assert (await gateway.client.get("/v2/tasks/t1")).status_code == 504


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "hint"),
    [
        ("GET", "/v2/task", 404, "ROUTE_NOT_FOUND", "/v2/tasks"),
        ("GET", "/v2/t%61sks", 404, "ROUTE_NOT_FOUND", ""),
        ("GET", "/v2/tasks/", 404, "ROUTE_NOT_FOUND", ""),
        ("GET", "/", 404, "ROUTE_NOT_FOUND", "/v2/"),
        ("DELETE", "/v2/tasks", 405, "METHOD_NOT_ALLOWED", "GET, POST"),
        ("POST", "/healthz", 405, "METHOD_NOT_ALLOWED", "GET, HEAD"),
    ],
)
async def test_a_wrong_path_or_method_says_what_is_right(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str, hint: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert hint in answer.json()["error"]["message"]
    if status == 405:
        assert answer.headers["allow"] == hint


async def test_a_body_over_the_limit_is_refused_before_it_is_read(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(max_body_mib=1)
    body = json.dumps({"generate": {"prompt": "x" * 10_000_000}}).encode()
    announced = await gateway.client.post("/v2/tasks", content=body)

    async def in_chunks() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    streamed = await gateway.client.post("/v2/tasks", content=in_chunks())
    for answer in (announced, streamed):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "REQUEST_TOO_LARGE"
        assert "1 MiB" in answer.json()["error"]["message"]
    assert "SubmitTask" not in orchestrator.requests
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_a_large_body_below_the_limit_arrives_whole(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    orchestrator.answer("SubmitTask", tasks.SubmitTaskResponse(task_id="t"))
    prompt = "é" * 1_500_000
    answer = await client.post("/v2/tasks", json={"generate": {"prompt": prompt}})
    assert answer.status_code == 202
    assert orchestrator.requests["SubmitTask"].task.generate.prompt == prompt


async def test_a_request_too_large_for_the_orchestrator_is_413_as_well(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    async def refuse(_request: Any, _context: Any) -> None:
        raise InvalidArgument(Reason.REQUEST_TOO_LARGE, "the prompt is larger than 1 MiB")

    orchestrator.on("SubmitTask", refuse)
    assert (await client.post("/v2/tasks", json=WORK)).status_code == 413


async def test_a_body_that_does_not_arrive_is_given_up(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(body_timeout_s=0.1)
    reader, writer = await asyncio.open_connection(*gateway.address.split(":"))
    writer.write(b"POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(5):
        assert b" 504 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_is_refused_never_blocks_the_connection(
    start_gateway: StartGateway,
) -> None:
    """A large body on a route that takes none fills the server's queue, and no handler reads it."""
    gateway = await start_gateway()
    answer = await gateway.client.request("GET", "/v2/nothing", content=b"x" * 5_000_000)
    assert answer.status_code == 404
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_a_model_registered_by_name_keeps_what_the_body_says(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    orchestrator.answer("GetModel", catalog.GetModelResponse())
    await client.get("/v2/catalog/models/org%2Fmodel%20q4")
    assert orchestrator.requests["GetModel"].model == "org/model q4"


async def test_a_call_whose_client_left_is_cancelled(orchestrator: FakeOrchestrator, gateway: RunningGateway) -> None:
    entered = asyncio.Event()

    async def never(_request: Any, _context: Any) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            orchestrator.ended.set()

    orchestrator.on("GetTask", never)
    _, writer = await asyncio.open_connection(*gateway.address.split(":"))
    writer.write(b"GET /v2/tasks/t HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await entered.wait()
    writer.close()
    async with asyncio.timeout(1):
        await orchestrator.ended.wait()
    await writer.wait_closed()


@pytest.mark.req("GATE-4007")
async def test_http_2_carries_calls_and_streams(orchestrator: FakeOrchestrator, gateway: RunningGateway) -> None:
    """Without TLS a client has to know beforehand; with TLS it will be negotiated."""
    orchestrator.answer("GetTask", tasks.GetTaskResponse())
    event = tasks.StreamTaskResponse(event=TaskEvent(cursor="1.0", started=Started(model="m")))
    orchestrator.stream("StreamTask", event, then_wait=True)
    async with httpx.AsyncClient(base_url=f"http://{gateway.address}", http1=False, http2=True) as client:
        answer = await client.get("/v2/tasks/t")
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        async with client.stream("GET", "/v2/tasks/t/events") as stream:
            async for line in stream.aiter_lines():
                assert line == "event: started"
                break
    async with asyncio.timeout(5):
        await orchestrator.ended.wait()
