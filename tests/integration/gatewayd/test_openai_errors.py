"""Errors as the official client raises them."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from gatewayd.openai.errors import error_body, failure_of
from llama_orch.v2 import task_service_pb2 as tasks
from llama_orch.v2.error_reason_pb2 import ERROR_REASON_INVALID_GRAMMAR
from llama_orch.v2.task_event_pb2 import Error, Started, TaskEvent, Tokens
from llorch import errors
from llorch.errors import LlorchError, Reason
from support.openai_client import openai_client

from .conftest import RunningGateway, StartGateway
from .fake_orchestrator import FakeOrchestrator

TOKEN = "right-token-of-this-test"


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai_client(f"http://{gateway.address}") as client:
        yield client


async def ask(client: openai.AsyncOpenAI, **options: Any) -> Any:
    return await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], **options)


@pytest.mark.req("GATE-4003")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.NotFound(Reason.MODEL_NOT_FOUND, "no"), openai.NotFoundError),
        (errors.invalid_field("generate.n", "no"), openai.BadRequestError),
        (errors.FailedPrecondition(Reason.MODEL_RETIRED, "no"), openai.BadRequestError),
        (errors.ResourceExhausted(Reason.QUEUE_FULL, "no", retry_after_ms=10), openai.RateLimitError),
        (errors.PermissionDenied(Reason.NOT_PERMITTED, "no"), openai.PermissionDeniedError),
        (errors.Unauthenticated(Reason.TOKEN_INVALID, "no"), openai.AuthenticationError),
        (errors.AlreadyExists(Reason.REQUEST_ID_REUSED, "no"), openai.ConflictError),
        (errors.Unavailable(Reason.NO_DEVICE, "no"), openai.InternalServerError),
    ],
)
async def test_a_refusal_is_the_clients_exception(
    orchestrator: FakeOrchestrator, client: openai.AsyncOpenAI, error: LlorchError, kind: type[openai.APIStatusError]
) -> None:
    async def refuse(_request: Any, _context: Any) -> None:
        raise error

    orchestrator.on("Generate", refuse)
    for stream in (False, True):
        with pytest.raises(kind) as caught:
            await ask(client, stream=stream)
        assert "no" in caught.value.message
        assert caught.value.code
    if error.violations:
        assert caught.value.param == "n"


async def test_a_wrong_key_is_an_authentication_error(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(token=TOKEN)
    async with openai_client(f"http://{gateway.address}", "wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"


async def test_without_a_token_any_key_will_do_on_this_machine(
    orchestrator: FakeOrchestrator, client: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await client.models.list()
    assert caught.value.status_code == 501, "the fake was reached"


async def test_an_error_in_mid_stream_is_an_exception(
    orchestrator: FakeOrchestrator, client: openai.AsyncOpenAI
) -> None:
    orchestrator.stream(
        "Generate",
        tasks.GenerateResponse(event=TaskEvent(task_id="t", started=Started(model="m"))),
        tasks.GenerateResponse(event=TaskEvent(tokens=Tokens(count=1, text="a"))),
        tasks.GenerateResponse(event=TaskEvent(error=Error(message="the worker is gone", retryable=True))),
    )
    chunks = await ask(client, stream=True)
    assert [(await anext(chunks)).choices[0].delta.content for _ in range(2)] == ["", "a"]
    with pytest.raises(openai.APIError, match="the worker is gone"):
        await anext(chunks)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (errors.Unavailable(Reason.NO_DEVICE, "no", retry_after_ms=1), 3),
        (errors.Unimplemented(Reason.NOT_IMPLEMENTED, "no"), 1),
        (errors.DeadlineExceeded(Reason.DEADLINE_PASSED, "no"), 1),
    ],
)
async def test_the_client_sends_again_only_what_may_succeed(
    orchestrator: FakeOrchestrator,
    gateway: RunningGateway,
    monkeypatch: pytest.MonkeyPatch,
    error: LlorchError,
    calls: int,
) -> None:
    made = 0

    async def refuse(_request: Any, _context: Any) -> None:
        nonlocal made
        made += 1
        raise error

    orchestrator.on("Generate", refuse)
    async with openai_client(f"http://{gateway.address}", max_retries=2) as client:
        monkeypatch.setattr(client, "_calculate_retry_timeout", lambda *_: 0.01)
        with pytest.raises(openai.InternalServerError):
            await ask(client)
    assert made == calls


@pytest.mark.parametrize(
    ("error", "param", "message"),
    [
        (errors.invalid_field("generate.sampling.top_p", "is 3"), "top_p", "top_p: is 3"),
        (errors.invalid_field("generate.stop[1]", "is empty"), "stop[1]", "stop[1]: is empty"),
        (
            errors.InvalidArgument(
                Reason.INVALID_GRAMMAR,
                "generate.output_constraint.json_schema: is not JSON",
                metadata={"field": "generate.output_constraint.json_schema"},
            ),
            "response_format",
            "response_format: is not JSON",
        ),
        (errors.NotFound(Reason.MODEL_NOT_FOUND, 'no model "generate.x" here'), None, 'no model "generate.x" here'),
    ],
)
def test_a_field_has_openais_name(error: LlorchError, param: str | None, message: str) -> None:
    told = error_body(error, "cor-1")["error"]
    assert (told["param"], told["message"]) == (param, message)


def test_a_task_that_failed_for_a_field_names_it_as_a_refusal_does() -> None:
    field = "generate.output_constraint.grammar"
    failure = Error(reason=ERROR_REASON_INVALID_GRAMMAR, message=f"{field}: ends too early", field=field)
    told = error_body(failure_of(failure), "cor-1")["error"]
    assert (told["param"], told["type"]) == ("output_constraint.grammar", "invalid_request_error")
    assert told["message"] == "output_constraint.grammar: ends too early"
