"""A gateway and an orchestrator that do not have the same token: who is served, and what the others are told."""

import json
from typing import Any

import pytest

from llama_orch.v2 import task_event_pb2, task_service_pb2

from .conftest import StartGateway
from .fake_orchestrator import FakeOrchestrator, running_orchestrator

TOKEN, OTHER = "a-long-secret-of-the-house", "another-secret-of-the-house"
WITH_TOKEN = {"authorization": f"Bearer {TOKEN}"}
ELSEWHERE = {"x-forwarded-for": "192.0.2.7"}
WITH_KEY = {"authorization": "Bearer llorch-of-some-app"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def error_of(answer: Any) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("elsewhere", [{}, ELSEWHERE])
async def test_an_orchestrator_with_another_token_is_no_fault_of_the_client(
    start_gateway: StartGateway, capsys: pytest.CaptureFixture[str], elsewhere: dict[str, str], stream: bool
) -> None:
    async with running_orchestrator(OTHER) as orchestrator:
        gateway = await start_gateway(token=TOKEN, orchestrator=orchestrator.address)
        path = "/v2/tasks/t/events" if stream else "/v2/tasks/t"
        status, code, message = error_of(await gateway.client.get(path, headers=WITH_TOKEN | elsewhere))
    assert (status, code) == (503, "UPSTREAM_UNAVAILABLE")
    assert "another token than this gateway" in message
    assert "LLORCH_GATEWAY_TOKEN" in message
    logged = capsys.readouterr()
    assert "orchestrator_refuses_this_gateway" in logged.out + logged.err
    assert TOKEN not in logged.out + logged.err + message


async def test_openai_clients_are_told_in_their_words(start_gateway: StartGateway) -> None:
    async with running_orchestrator(OTHER) as orchestrator:
        gateway = await start_gateway(token=TOKEN, orchestrator=orchestrator.address)
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT, headers=WITH_TOKEN)
    assert answer.status_code == 503
    assert "another token than this gateway" in answer.json()["error"]["message"]


async def test_readiness_says_it_too(start_gateway: StartGateway) -> None:
    async with running_orchestrator(OTHER) as orchestrator:
        gateway = await start_gateway(token=TOKEN, orchestrator=orchestrator.address)
        status, _, message = error_of(await gateway.client.get("/readyz"))
        assert (status, "another token" in message) == (503, True)
        assert (await gateway.client.get("/healthz")).status_code == 200
        without = await start_gateway(orchestrator=orchestrator.address)
        assert (await without.client.get("/readyz")).status_code == 200  # a probe of its machine needs no token


async def test_an_orchestrator_without_a_token_serves_this_machine_alone(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    orchestrator.answer("GetTask", task_service_pb2.GetTaskResponse())
    gateway = await start_gateway(token=TOKEN)
    assert (await gateway.client.get("/v2/tasks/t", headers=WITH_TOKEN)).status_code == 200
    status, code, message = error_of(await gateway.client.get("/v2/tasks/t", headers=WITH_TOKEN | ELSEWHERE))
    assert (status, code) == (503, "UPSTREAM_UNAVAILABLE")
    assert "this gateway has a token and the orchestrator has none" in message


async def test_a_gateway_without_a_token_hands_on_what_its_client_shows(start_gateway: StartGateway) -> None:
    async with running_orchestrator(TOKEN) as orchestrator:
        orchestrator.answer("GetTask", task_service_pb2.GetTaskResponse())
        gateway = await start_gateway(orchestrator=orchestrator.address)
        assert (await gateway.client.get("/v2/tasks/t", headers=WITH_TOKEN)).status_code == 200
        for headers, code in (({}, "TOKEN_MISSING"), ({"authorization": f"Bearer {OTHER}"}, "TOKEN_INVALID")):
            assert error_of(await gateway.client.get("/v2/tasks/t", headers=headers))[:2] == (401, code)


async def test_a_gateway_without_a_token_reads_tasks_with_what_its_client_shows(start_gateway: StartGateway) -> None:
    """It has none to open a delivery with, and so makes a call for each reader."""
    async with running_orchestrator(TOKEN) as orchestrator:
        event = task_event_pb2.TaskEvent(tokens=task_event_pb2.Tokens(text="a"))
        orchestrator.stream("StreamTask", task_service_pb2.StreamTaskResponse(event=event))
        gateway = await start_gateway(orchestrator=orchestrator.address)
        for _ in range(2):
            answer = await gateway.client.get("/v2/tasks/t/events", headers=WITH_TOKEN)
            assert (answer.status_code, answer.text.count("event: token")) == (200, 1)
        assert error_of(await gateway.client.get("/v2/tasks/t/events"))[:2] == (401, "TOKEN_MISSING")


@pytest.mark.parametrize("elsewhere", [{}, ELSEWHERE])
async def test_a_wrong_key_of_an_app_is_the_fault_of_its_client(
    start_gateway: StartGateway, elsewhere: dict[str, str]
) -> None:
    async with running_orchestrator(TOKEN) as orchestrator:
        gateway = await start_gateway(token=TOKEN, orchestrator=orchestrator.address)
        answer = await gateway.client.get("/v2/tasks/t", headers=WITH_KEY | elsewhere)
    assert error_of(answer)[:2] == (401, "TOKEN_INVALID")
    assert json.loads(answer.text)["error"]["legacy_code"] == 40102
