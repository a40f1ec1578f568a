"""Tokens are counted and told beside everything else: by a worker that has the model, or by its file alone."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import (
    app_pb2,
    app_service_pb2,
    app_service_pb2_grpc,
    catalog_service_pb2,
    model_pb2,
    placement_service_pb2,
    placement_service_pb2_grpc,
    task_pb2,
    task_service_pb2,
    worker_pb2,
)
from llorch.errors import (
    FailedPrecondition,
    InvalidArgument,
    LlorchError,
    NotFound,
    Reason,
)
from llorch.options.generation import MAX_INPUT_BYTES
from llorch.rpc.client import call, open_channel
from support.leaks import child_processes
from support.whole_system import CALL_S, WholeSystem, gguf, task, wait_until, whole_system

ANSWERS_WITHIN_S = 30.0
"""The first answer from a file includes the start of a process."""


async def count(system: WholeSystem, spec: task_pb2.TaskSpec) -> task_service_pb2.CountTokensResponse:
    request = task_service_pb2.CountTokensRequest(task=spec)
    return await call(system.tasks.CountTokens, request, timeout_s=ANSWERS_WITHIN_S)


async def tokenize(
    system: WholeSystem, text: str, model: str = "sim", **options: Any
) -> task_service_pb2.TokenizeResponse:
    request = task_service_pb2.TokenizeRequest(model=model, text=text, **options)
    return await call(system.tasks.Tokenize, request, timeout_s=ANSWERS_WITHIN_S)


def chat(*texts: str) -> task_pb2.TaskSpec:
    messages = [task_pb2.ChatMessage(role="user", content=[task_pb2.ContentPart(text=text)]) for text in texts]
    work = task_pb2.GenerateWork(chat=task_pb2.ChatInput(messages=messages), max_tokens=2)
    return task_pb2.TaskSpec(model="sim", generate=work)


def embed(*texts: str) -> task_pb2.TaskSpec:
    return task_pb2.TaskSpec(model="sim", embed=task_pb2.EmbedWork(inputs=texts))


async def all_that_decides(system: WholeSystem) -> tuple[object, ...]:
    """What is shown of it: without times, and without what devices measure."""
    state = await system.state()
    state.ClearField("time")
    for node in state.nodes:
        node.ClearField("last_report_age_ms")
        node.ClearField("register_time")
    for device in state.devices:
        device.ClearField("device")
    available = await call(
        system.catalog.GetAvailability, catalog_service_pb2.GetAvailabilityRequest(), timeout_s=CALL_S
    )
    models = await call(system.catalog.ListModels, catalog_service_pb2.ListModelsRequest(), timeout_s=CALL_S)
    tasks = await call(system.tasks.ListTasks, task_service_pb2.ListTasksRequest(), timeout_s=CALL_S)
    placement = placement_service_pb2_grpc.PlacementServiceStub(system.channel)
    decided = await call(placement.ListDecisions, placement_service_pb2.ListDecisionsRequest(), timeout_s=CALL_S)
    return state, available, models, tasks, decided


async def loaded_worker(system: WholeSystem) -> worker_pb2.Worker:
    """Of the model `sim`, which it loads and which the orchestrator is attached to."""
    await system.generate(task(max_tokens=1))
    (worker,) = (await system.state()).workers
    return worker


async def test_a_model_that_is_not_loaded_is_counted_by_its_file_and_nothing_changes(system: WholeSystem) -> None:
    await system.register("small", f"file:{gguf(system.folder)}", context=256)
    before = await all_that_decides(system)
    assert (await count(system, task("x" * 41))).tokens_in == 11
    assert (await count(system, chat("x" * 40, "y" * 40))).tokens_in == 21
    embedded = await count(system, embed("x" * 40, "y" * 3))
    assert (embedded.tokens_in, embedded.HasField("context")) == (11, False)
    too_long = await count(system, task("x" * 4000, model="small"))
    assert (too_long.tokens_in, too_long.context) == (1000, 256)
    found = await tokenize(system, "Hello, world", with_pieces=True)
    assert list(found.pieces) == [b"Hell", b"o, w", b"orld"]
    assert len(found.token_ids) == 3
    assert await all_that_decides(system) == before


async def test_what_is_counted_is_what_the_task_then_has(system: WholeSystem) -> None:
    for spec in (task("x" * 41, max_tokens=2), chat("one", "two and three")):
        by_file = await count(system, spec)
        events = await system.generate(spec)
        assert by_file.tokens_in == events[-1].end.tokens_in
        by_worker = await count(system, spec)
        assert by_worker.tokens_in == events[-1].end.tokens_in
        assert by_worker.context == 8192


async def test_a_worker_that_has_the_model_is_asked_and_where_it_has_just_died_the_file(system: WholeSystem) -> None:
    worker = await loaded_worker(system)
    processes = child_processes()
    assert (await count(system, task("x" * 41))).tokens_in == 11
    assert list((await tokenize(system, "abcd", with_pieces=True)).pieces) == [b"abcd"]
    await refuses_what_only_the_engine_sees(system)
    assert child_processes() == processes, "none was started for it"
    os.kill(worker.pid, signal.SIGKILL)
    assert (await count(system, task("x" * 41))).tokens_in == 11
    await refuses_what_only_the_engine_sees(system)


async def refuses_what_only_the_engine_sees(system: WholeSystem) -> None:
    with_tools, with_bad_values = chat("x"), chat("x")
    with_tools.generate.chat.tools.add(name="look")
    with_bad_values.generate.chat.template_values = "[]"
    for spec, reason, named in (
        (with_tools, Reason.UNSUPPORTED_OPTION, "tools"),
        (with_bad_values, Reason.INVALID_FIELD, "template_values"),
    ):
        with pytest.raises(InvalidArgument, match=named) as refused:
            await count(system, spec)
        assert refused.value.reason is reason


async def test_what_is_asked_is_in_no_log(system: WholeSystem, capfd: pytest.CaptureFixture[str]) -> None:
    said = "a-word-that-nothing-else-says"
    wrong = chat(said)
    wrong.generate.chat.tools.add(name="look", description=said)
    for is_loaded in (False, True):
        await count(system, task(said))
        await tokenize(system, said)
        with pytest.raises(InvalidArgument):
            await count(system, wrong)
        if not is_loaded:
            await loaded_worker(system)
    out, err = capfd.readouterr()
    logs = [path.read_text(errors="replace") for path in system.folder.rglob("*.log")]
    assert logs
    assert not [text for text in (out, err, *logs) if said in text]


async def test_a_count_does_not_wait_behind_tasks(tmp_path: Path) -> None:
    async with whole_system(tmp_path, slots=1) as system:
        running = [asyncio.ensure_future(system.generate(task(max_tokens=2000))) for _ in range(3)]

        async def is_full() -> bool:
            state = await system.state()
            return state.tasks_running == 1 and sum(queue.depth for queue in state.queues) == 2

        await wait_until(is_full)
        assert (await count(system, task("x" * 41))).tokens_in == 11
        assert await is_full()
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_without_the_file_the_remedy_is_told_and_nothing_is_downloaded(system: WholeSystem) -> None:
    await system.register("far", "https://127.0.0.1:1/far.gguf")
    with pytest.raises(FailedPrecondition, match=r"holds the file of model 'far'.*llorch pull far") as refused:
        await tokenize(system, "x", model="far")
    assert refused.value.reason is Reason.MODEL_FILE_MISSING


def _of_robot() -> task_pb2.TaskSpec:
    spec = chat("x")
    spec.generate.chat.messages[0].role = "robot"
    return spec


NO_TASKS: list[tuple[task_pb2.TaskSpec, type[LlorchError], Reason, str]] = [
    (task("x", model="sin"), NotFound, Reason.MODEL_NOT_FOUND, "nearest names are: sim"),
    (task("x", model=""), InvalidArgument, Reason.INVALID_FIELD, "model"),
    (task(""), InvalidArgument, Reason.INVALID_FIELD, "generate.prompt"),
    (task("x" * (MAX_INPUT_BYTES + 1)), InvalidArgument, Reason.REQUEST_TOO_LARGE, "4194305 bytes"),
    (task_pb2.TaskSpec(model="sim"), InvalidArgument, Reason.INVALID_FIELD, "needs work"),
    (task_pb2.TaskSpec(model="sim", rerank=task_pb2.RerankWork()), InvalidArgument, Reason.INVALID_FIELD, "counted of"),
    (embed(), InvalidArgument, Reason.INVALID_FIELD, "embed.inputs"),
    (task("x", app="aider"), InvalidArgument, Reason.INVALID_FIELD, "app"),
    (_of_robot(), InvalidArgument, Reason.INVALID_FIELD, "robot"),
    (task("x", deadline_ms=0), InvalidArgument, Reason.INVALID_FIELD, "deadline_ms"),
]
NO_TEXTS = [
    ("", "sim", Reason.INVALID_FIELD),
    ("x", "", Reason.INVALID_FIELD),
    ("x" * (MAX_INPUT_BYTES + 1), "sim", Reason.REQUEST_TOO_LARGE),
    ("x", "sin", Reason.MODEL_NOT_FOUND),
]


async def test_what_no_task_can_be_is_refused_as_a_task_is(system: WholeSystem) -> None:
    for spec, refusal, reason, named in NO_TASKS:
        with pytest.raises(refusal, match=named) as refused:
            await count(system, spec)
        assert refused.value.reason is reason
    for text, model, reason in NO_TEXTS:
        with pytest.raises(LlorchError) as not_tokenized:
            await tokenize(system, text, model=model)
        assert not_tokenized.value.reason is reason
    request = catalog_service_pb2.SetModelStateRequest(model="sim", state=model_pb2.MODEL_STATE_RETIRED)
    await call(system.catalog.SetModelState, request, timeout_s=CALL_S)
    with pytest.raises(FailedPrecondition) as retired:
        await count(system, task())
    assert retired.value.reason is Reason.MODEL_RETIRED


async def test_the_longest_text_that_is_taken_is_answered_whole(system: WholeSystem) -> None:
    found = await tokenize(system, "x" * MAX_INPUT_BYTES, with_pieces=True)
    assert len(found.token_ids) == len(found.pieces) == MAX_INPUT_BYTES // 4


@asynccontextmanager
async def acting_as_app(system: WholeSystem, **options: object) -> AsyncIterator[WholeSystem]:
    app = app_pb2.App(app="aider", **options)  # type: ignore[arg-type]  # tests name fields
    stub = app_service_pb2_grpc.AppServiceStub(system.channel)
    key = (await call(stub.CreateApp, app_service_pb2.CreateAppRequest(app=app), timeout_s=CALL_S)).key
    channel = open_channel(system.address, token=key)
    try:
        yield WholeSystem(system.address, system.http, channel, system.folder, system.lives)
    finally:
        await channel.close()


async def test_an_app_asks_by_its_own_name_for_a_model_and_spends_nothing(system: WholeSystem) -> None:
    async with acting_as_app(system, models={"gpt-4o": "sim"}, max_tokens_per_minute=1) as aider:
        for _ in range(3):
            assert (await count(aider, task("x" * 41, model="gpt-4o"))).tokens_in == 11
            assert len((await tokenize(aider, "abcdef", model="gpt-4o")).token_ids) == 2


async def test_the_gateway_takes_both_as_json(system: WholeSystem) -> None:
    counted = await system.http.post("/v2/count_tokens", json={"model": "sim", "generate": {"prompt": "x" * 41}})
    assert (counted.status_code, counted.json()["tokens_in"]) == (200, 11)
    found = await system.http.post("/v2/tokenize", json={"model": "sim", "text": "abcdef", "with_pieces": True})
    assert found.status_code == 200
    assert [base64.b64decode(piece) for piece in found.json()["pieces"]] == [b"abcd", b"ef"]
    refused = await system.http.post("/v2/tokenize", json={"model": "sim", "txt": "abcdef"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "UNKNOWN_FIELD")
