"""Requests of OpenAI's API as its clients send them: what is refused, and what is listed."""

from typing import Any

import httpx
import pytest

from llama_orch.v2 import catalog_service_pb2 as catalog
from llama_orch.v2 import model_pb2
from llorch.errors import NotFound, Reason, invalid_field

from .fake_orchestrator import FakeOrchestrator

HI = {"role": "user", "content": "hi"}


async def test_a_refused_field_is_a_400_that_names_it(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    body = {"model": "m", "messages": [HI], "functions": []}
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "functions: it is not supported here, or not with this value; use tools",
        "type": "invalid_request_error",
        "param": "functions",
        "code": "unsupported_option",
    }
    assert "Generate" not in orchestrator.requests


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/tasks"])
async def test_what_is_no_text_can_be_told_about(client: httpx.AsyncClient, path: str) -> None:
    """An error repeats what was wrong, and has to be text all the same."""
    for body in (b'{"\\ud800": 1}', b'{"model": "m", "deadline_ms": "\\ud800"}', b'{"model": 7, "x": "\\ud800"}'):
        answer = await client.post(path, content=body)
        assert answer.status_code == 400, answer.text


async def test_fields_that_the_orchestrator_refuses_have_openais_names(
    orchestrator: FakeOrchestrator, client: httpx.AsyncClient
) -> None:
    places = iter(
        [
            ("generate.sampling.top_p", "top_p"),
            ("generate.chat.messages[0]", "messages[0]"),
            ("generate.max_tokens", "max_tokens"),
            ("generate.output_constraint.json_schema", "response_format"),
            ("deadline_ms", "deadline_ms"),
        ]
    )
    expected = ""

    async def refuse(_request: Any, _context: Any) -> None:
        nonlocal expected
        place, expected = next(places)
        raise invalid_field(place, "no")

    orchestrator.on("Generate", refuse)
    for _ in range(5):
        error = (await client.post("/v1/chat/completions", json={"model": "m", "messages": [HI]})).json()["error"]
        assert (error["param"], error["message"]) == (expected, f"{expected}: no")


async def test_bad_json_hosts_tokens_and_paths_come_in_openais_envelope(client: httpx.AsyncClient) -> None:
    for method, path, status, code in (
        ("POST", "/v1/chat/completions", 400, "malformed_request"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/v1/chat", 404, "route_not_found"),
        ("GET", "/v1/models?limit=1", 400, "unknown_field"),
    ):
        answer = await client.request(method, path, content=b"{" if method == "POST" else None)
        assert answer.status_code == status
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert answer.json()["error"]["code"] == code
    stranger = await client.get("/v1/models", headers={"Host": "evil.example"})
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (403, "not_permitted")
    remote = await client.get("/v1/models", headers={"X-Forwarded-For": "10.0.0.9"})
    assert (remote.status_code, remote.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_models_are_listed_page_by_page(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    def model(name: str, state: "model_pb2.ModelState.ValueType") -> model_pb2.Model:
        found = model_pb2.Model(spec=model_pb2.ModelSpec(name=name), state=state, names=[name, f"{name}/own"])
        found.create_time.FromSeconds(1000)
        return found

    pages = {
        "": catalog.ListModelsResponse(models=[model("a", model_pb2.MODEL_STATE_ACTIVE)], next_page_token="2"),
        "2": catalog.ListModelsResponse(
            models=[model("b", model_pb2.MODEL_STATE_RETIRED), model("c", model_pb2.MODEL_STATE_ACTIVE)]
        ),
    }

    async def list_models(request: Any, _context: Any) -> Any:
        return pages[request.page_token]

    orchestrator.on("ListModels", list_models)
    answer = (await client.get("/v1/models")).json()
    assert answer == {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 1000, "owned_by": "llama-orch"}
            for name in ("a", "a/own", "c", "c/own")
        ],
    }


async def test_a_model_is_shown_by_its_name(orchestrator: FakeOrchestrator, client: httpx.AsyncClient) -> None:
    orchestrator.answer(
        "GetModel", catalog.GetModelResponse(model=model_pb2.Model(spec=model_pb2.ModelSpec(name="qwen3:8b")))
    )
    assert (await client.get("/v1/models/qwen3:8b")).json()["id"] == "qwen3:8b"
    assert orchestrator.requests["GetModel"].model == "qwen3:8b"

    async def refuse(_request: Any, _context: Any) -> None:
        raise NotFound(Reason.MODEL_NOT_FOUND, "no")

    orchestrator.on("GetModel", refuse)
    answer = await client.get("/v1/models/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
