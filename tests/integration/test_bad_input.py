"""What can't be right is refused by name, in gRPC with the reason and in HTTP with the mapped status."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import error_reason_pb2, task_pb2, task_service_pb2
from llorch.errors import LlorchError, Reason
from llorch.rpc.client import call
from llorch.rpc.http_status import HTTP_STATUS
from support.streams import check_stream
from support.whole_system import CALL_S, WholeSystem, gguf, task, wait_until

Change = Callable[[task_pb2.TaskSpec], object]


def _set(**values: Any) -> Change:
    def change(spec: task_pb2.TaskSpec) -> None:
        for name, value in values.items():
            setattr(spec.generate, name, value)

    return change


def _sample(**values: float) -> Change:
    def change(spec: task_pb2.TaskSpec) -> None:
        for name, value in values.items():
            setattr(spec.generate.sampling, name, value)

    return change


def _model(name: str) -> Change:
    def change(spec: task_pb2.TaskSpec) -> None:
        spec.model = name

    return change


def _chat(role: str, *texts: str) -> Change:
    def change(spec: task_pb2.TaskSpec) -> None:
        message = spec.generate.chat.messages.add(role=role)
        for text in texts:
            message.content.add(text=text)

    return change


def _image(spec: task_pb2.TaskSpec) -> None:
    _chat("user", "look")(spec)
    spec.generate.chat.messages[0].content.add().image.media_type = "image/png"


def _huge_tool(spec: task_pb2.TaskSpec) -> None:
    _chat("user", "hi")(spec)
    spec.generate.chat.tools.add(name="f", description="x" * 5_000_000)


BAD_TASKS: dict[str, tuple[Change, Reason, str]] = {
    "too many tools": (_huge_tool, Reason.REQUEST_TOO_LARGE, "generate"),
    "unknown model": (_model("smi"), Reason.MODEL_NOT_FOUND, "sim"),
    "no model": (_model(""), Reason.INVALID_FIELD, "model"),
    "empty prompt": (_set(prompt=""), Reason.INVALID_FIELD, "generate.prompt"),
    "no work": (lambda spec: spec.ClearField("generate"), Reason.INVALID_FIELD, "generate"),
    "max_tokens of 0": (_set(max_tokens=0), Reason.INVALID_FIELD, "generate.max_tokens"),
    "too many max_tokens": (_set(max_tokens=2**32 - 1), Reason.INVALID_FIELD, "generate.max_tokens"),
    "n of 0": (_set(n=0), Reason.INVALID_FIELD, "generate.n"),
    "temperature NaN": (_sample(temperature=float("nan")), Reason.INVALID_FIELD, "temperature"),
    "temperature infinite": (_sample(temperature=float("inf")), Reason.INVALID_FIELD, "temperature"),
    "temperature below 0": (_sample(temperature=-0.1), Reason.INVALID_FIELD, "temperature"),
    "top_p of 0": (_sample(top_p=0), Reason.INVALID_FIELD, "top_p"),
    "5 MB prompt": (_set(prompt="x" * 5_000_000), Reason.REQUEST_TOO_LARGE, "generate"),
    "empty stop": (lambda spec: spec.generate.stop.append(""), Reason.INVALID_FIELD, "generate.stop[0]"),
    "10,000 stops": (lambda spec: spec.generate.stop.extend(["x"] * 10_000), Reason.INVALID_FIELD, "generate.stop"),
    "unknown role": (_chat("wizard", "hi"), Reason.INVALID_FIELD, "role"),
    "messages without text": (_chat("user", ""), Reason.INVALID_FIELD, "generate.chat.messages"),
    "an image": (_image, Reason.UNSUPPORTED_CONTENT, "image"),
    "a deadline of 0": (lambda spec: setattr(spec, "deadline_ms", 0), Reason.INVALID_FIELD, "deadline_ms"),
    "unknown priority": (lambda spec: setattr(spec, "priority", "urgent"), Reason.INVALID_FIELD, "priority"),
    "an app by name": (lambda spec: setattr(spec, "app", "aider"), Reason.INVALID_FIELD, "app"),
    "a bad request_id": (lambda spec: setattr(spec, "request_id", "a b"), Reason.INVALID_FIELD, "request_id"),
    "adapters": (lambda spec: spec.adapters.append("x"), Reason.UNSUPPORTED_OPTION, "adapters"),
    "embeddings": (lambda spec: spec.embed.inputs.append("x"), Reason.INVALID_FIELD, "embed"),
}


@pytest.mark.req("ORCH-1001")
async def test_tasks_that_can_not_be_right_are_refused_by_name(system: WholeSystem) -> None:
    for name, (change, reason, named) in BAD_TASKS.items():
        spec = task()
        change(spec)
        request = task_service_pb2.SubmitTaskRequest(task=spec)
        with pytest.raises(LlorchError) as refused:
            await call(system.tasks.SubmitTask, request, timeout_s=CALL_S)
        assert refused.value.reason is reason, name
        assert named in refused.value.message, name
    assert not (await system.state()).workers, "nothing was started for any of them"


BAD_BODIES: dict[str, tuple[str, int, str, str]] = {
    "unknown field": ('{"modle": "sim"}', 400, "UNKNOWN_FIELD", "model"),
    "unknown nested field": ('{"model": "sim", "generate": {"promt": "x"}}', 400, "UNKNOWN_FIELD", "prompt"),
    "broken JSON": ('{"model": "sim",', 400, "MALFORMED_REQUEST", "line 1"),
    "negative max_tokens": ('{"model": "sim", "generate": {"prompt": "x", "max_tokens": -1}}', 400, "", "max_tokens"),
    "NaN": ('{"model": "sim", "generate": {"prompt": "x", "sampling": {"temperature": NaN}}}', 400, "", "NaN"),
    "not an object": ("[]", 400, "MALFORMED_REQUEST", ""),
    "unknown model": ('{"model": "smi", "generate": {"prompt": "x"}}', 404, "MODEL_NOT_FOUND", "sim"),
    "empty prompt": ('{"model": "sim", "generate": {"prompt": ""}}', 400, "INVALID_FIELD", "prompt"),
}


@pytest.mark.req("GATE-4001")
async def test_bodies_that_can_not_be_right_are_refused_with_the_place(system: WholeSystem) -> None:
    for name, (content, status, code, named) in BAD_BODIES.items():
        answer = await system.http.post("/v2/tasks", content=content)
        assert answer.status_code == status, (name, answer.text)
        error = answer.json()["error"]
        assert code in ("", error["code"]), (name, error)
        assert named in error["message"], (name, error)
        assert error["correlation_id"] == answer.headers["x-correlation-id"]


async def test_a_10_mb_body_is_refused_with_413(system: WholeSystem) -> None:
    answer = await system.http.post("/v2/tasks", json={"model": "sim", "generate": {"prompt": "x" * 10_000_000}})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "REQUEST_TOO_LARGE"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("DELETE", "/v2/tasks", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v2/task", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/v2/tasks/task-unknown", 404, "TASK_NOT_FOUND"),
        ("GET", "/v2/tasks/task-unknown/events", 404, "TASK_NOT_FOUND"),
        ("GET", "/v2/tasks?page_size=5000", 400, "INVALID_FIELD"),
        ("GET", "/v2/tasks?page_token=!", 400, "INVALID_PAGE_TOKEN"),
        ("GET", "/v2/catalog/models/smi", 404, "MODEL_NOT_FOUND"),
        ("GET", "/v2/nodes/cellar", 404, "NODE_NOT_FOUND"),
        ("POST", "/v2/nodes/join-tokens", 501, "NOT_IMPLEMENTED"),
    ],
)
async def test_requests_that_can_not_be_served_have_their_status(
    system: WholeSystem, method: str, path: str, status: int, code: str
) -> None:
    answer = await system.http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert status in (*HTTP_STATUS.values(), 405, 413)


@pytest.mark.req("POOL-2006")
async def test_a_model_file_that_can_not_be_used_ends_the_task_with_what_was_found(
    system: WholeSystem, tmp_path: Path
) -> None:
    """It was one when the model was added."""
    page, gone = gguf(tmp_path, "page.gguf"), gguf(tmp_path, "gone.gguf")
    for name, file in (("html", page), ("gone", gone)):
        await system.register(name, f"file:{file}")
    page.write_text("<!DOCTYPE html><html>404</html>")
    gone.unlink()
    for name, reason, named in (
        ("html", error_reason_pb2.ERROR_REASON_MODEL_FILE_INVALID, "page.gguf"),
        ("gone", error_reason_pb2.ERROR_REASON_MODEL_FILE_MISSING, "gone.gguf"),
    ):
        events = await system.generate(task(model=name))
        check_stream(events)
        assert events[-1].error.reason == reason, name
        assert named in events[-1].error.message, name


@pytest.mark.req("ORCH-1014")
async def test_a_model_that_fits_no_device_is_refused_with_both_numbers(system: WholeSystem, tmp_path: Path) -> None:
    await system.register("huge", f"file:{tmp_path}/sim.gguf", vram_claim_mib=50_000)
    with pytest.raises(LlorchError) as refused:
        await system.generate(task(model="huge"))
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    assert "50000 MiB" in refused.value.message
    assert "24576 MiB" in refused.value.message

    async def is_idle() -> bool:
        return not (await system.state()).workers

    await wait_until(is_idle)


@pytest.mark.req("ORCH-1019")
async def test_a_source_that_can_not_be_right_is_refused_when_it_is_registered(system: WholeSystem) -> None:
    for source, reason in (
        ("", Reason.INVALID_FIELD),
        ("file:relative.gguf", Reason.INVALID_FIELD),
        ("ftp://host/model.gguf", Reason.UNSUPPORTED_SOURCE),
    ):
        with pytest.raises(LlorchError) as refused:
            await system.register("bad", source)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("work", "what"),
    [
        ({"chat": {"messages": [{}] * 1_000_000}}, "entries in its lists"),
        ({"prompt": "a" * (5 * 1024 * 1024)}, "bytes; at most"),
    ],
    ids=["a million empty messages", "too many bytes"],
)
async def test_a_call_of_too_much_is_refused_before_it_is_decoded(
    system: WholeSystem, work: dict[str, Any], what: str
) -> None:
    spec = task_pb2.TaskSpec(model="sim", generate=task_pb2.GenerateWork(**work))
    with pytest.raises(LlorchError, match=what) as refused:
        await call(system.tasks.SubmitTask, task_service_pb2.SubmitTaskRequest(task=spec), timeout_s=CALL_S)
    assert refused.value.reason is Reason.REQUEST_TOO_LARGE
