"""Apps through all daemons: keys, names of their own, what they may do and see; and sessions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest

from llama_orch.v2 import (
    app_pb2,
    app_service_pb2,
    app_service_pb2_grpc,
    cancel_pb2,
    catalog_service_pb2,
    placement_service_pb2,
    placement_service_pb2_grpc,
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    task_service_pb2,
)
from llorch.auth import key_hash
from llorch.errors import AlreadyExists, NotFound, PermissionDenied, Reason, ResourceExhausted, Unauthenticated
from llorch.rpc.client import call, open_channel
from support.gguf_writer import smallest_model
from support.openai_client import openai_client
from support.streams import check_stream
from support.whole_system import CALL_S, WholeSystem, gguf, task
from worker_orcd.engines.sim.tokens import sim_text


def apps(system: WholeSystem) -> app_service_pb2_grpc.AppServiceStub:
    return app_service_pb2_grpc.AppServiceStub(system.channel)


async def create(system: WholeSystem, name: str, **options: object) -> str:
    """Its key."""
    app = app_pb2.App(app=name, **options)  # type: ignore[arg-type]  # tests name fields
    request = app_service_pb2.CreateAppRequest(app=app)
    answer = await call(apps(system).CreateApp, request, timeout_s=CALL_S)
    assert answer.app.app == name
    assert key_hash(answer.key).startswith(answer.app.key_fingerprint)
    return answer.key


@asynccontextmanager
async def acting_as(system: WholeSystem, key: str) -> AsyncIterator[WholeSystem]:
    """The same system for a client with this key."""
    channel = open_channel(system.address, token=key)
    try:
        yield WholeSystem(system.address, system.http, channel, system.folder, system.lives)
    finally:
        await channel.close()


async def test_a_key_makes_its_bearer_the_app_and_is_worth_nothing_once_it_is_deleted(system: WholeSystem) -> None:
    key = await create(system, "aider", models={"gpt-4o": "sim"}, priority="batch")
    async with acting_as(system, key) as aider:
        task_id = await aider.submit(task(model="gpt-4o"))
        shown = await aider.task(task_id)
        assert (shown.app, shown.model, shown.priority) == ("aider", "sim", "batch")
        assert check_stream(await aider.stream(task_id)) == sim_text(7, 0, 8)
        await call(apps(system).DeleteApp, app_service_pb2.DeleteAppRequest(app="aider"), timeout_s=CALL_S)
        with pytest.raises(Unauthenticated) as refused:
            await aider.submit(task())
        assert refused.value.reason is Reason.TOKEN_INVALID


async def test_apps_are_listed_changed_and_never_shown_with_their_keys(system: WholeSystem) -> None:
    key = await create(system, "open-webui")
    with pytest.raises(AlreadyExists):
        await create(system, "open-webui")
    changed = app_pb2.App(app="open-webui", weight=2.5, max_concurrent_tasks=3)
    await call(apps(system).UpdateApp, app_service_pb2.UpdateAppRequest(app=changed), timeout_s=CALL_S)
    listed = await call(apps(system).ListApps, app_service_pb2.ListAppsRequest(), timeout_s=CALL_S)
    (app,) = listed.apps
    assert (app.weight, app.max_concurrent_tasks, app.priority) == (2.5, 3, "interactive")
    assert app.HasField("create_time")
    assert key not in str(listed)
    async with acting_as(system, key) as still:
        assert await still.submit(task())


async def test_an_app_manages_nothing(system: WholeSystem) -> None:
    key = await create(system, "aider")
    async with acting_as(system, key) as aider:
        with pytest.raises(PermissionDenied) as refused:
            await create(aider, "another")
        assert refused.value.reason is Reason.NOT_PERMITTED
        assert "may not call AppService/CreateApp; leave the key out: this server has no" in refused.value.message
        with pytest.raises(PermissionDenied):
            await aider.register("mine", "file:/etc/passwd")
        with pytest.raises(PermissionDenied):
            await aider.state()


async def test_an_app_sees_its_own_tasks_only(system: WholeSystem) -> None:
    async with (
        acting_as(system, await create(system, "one")) as one,
        acting_as(system, await create(system, "two")) as two,
    ):
        task_id = await one.submit(task())
        for look in (two.task(task_id), two.stream(task_id)):
            with pytest.raises(NotFound) as refused:
                await look
            assert refused.value.reason is Reason.TASK_NOT_FOUND
        asked = task_service_pb2.ListTasksRequest()
        assert (await call(two.tasks.ListTasks, asked, timeout_s=CALL_S)).tasks == []
        cancelled = await call(
            two.tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id), timeout_s=CALL_S
        )
        assert cancelled.outcome == cancel_pb2.CANCEL_OUTCOME_UNKNOWN
        assert [shown.task_id for shown in (await call(system.tasks.ListTasks, asked, timeout_s=CALL_S)).tasks] == [
            task_id
        ]


@pytest.mark.req("ORCH-1033")
async def test_the_key_works_through_the_gateway_with_the_apps_own_names(system: WholeSystem) -> None:
    key = await create(system, "open-webui", models={"gpt-4o": "sim"})
    async with openai_client(str(system.http.base_url), api_key=key) as client:
        answer = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hello"}], seed=7, max_tokens=8
        )
    assert answer.choices[0].message.content == sim_text(7, 0, 8)
    listed = await system.http.get("/v2/tasks")
    assert [shown["app"] for shown in listed.json()["tasks"]] == ["open-webui"]


async def test_what_is_asked_about_a_model_with_a_key_is_asked_by_the_apps_own_name(system: WholeSystem) -> None:
    key = await create(system, "aider", models={"gpt-4o": "sim"})
    own_name = placement_service_pb2.ExplainPlacementRequest(model="gpt-4o")
    async with acting_as(system, key) as aider:
        stub = placement_service_pb2_grpc.PlacementServiceStub(aider.channel)
        assert (await call(stub.ExplainPlacement, own_name, timeout_s=CALL_S)).decision.model == "sim"
        shown = await call(
            aider.catalog.GetModel, catalog_service_pb2.GetModelRequest(model="gpt-4o"), timeout_s=CALL_S
        )
        assert shown.model.spec.name == "sim"
        of_another = placement_service_pb2.ExplainPlacementRequest(model="sim", app="open-webui")
        with pytest.raises(PermissionDenied, match="leave app out"):
            await call(stub.ExplainPlacement, of_another, timeout_s=CALL_S)
    stub = placement_service_pb2_grpc.PlacementServiceStub(system.channel)
    with pytest.raises(NotFound):
        await call(stub.ExplainPlacement, own_name, timeout_s=CALL_S)


async def test_a_name_of_an_app_for_a_model_that_is_gone_is_marked(system: WholeSystem) -> None:
    await system.register("own", f"file:{gguf(system.folder, 'own.gguf')}")
    await create(system, "aider", models={"gpt-4o": "own", "small": "sim"})
    await call(system.catalog.DeleteModel, catalog_service_pb2.DeleteModelRequest(model="own"), timeout_s=CALL_S)
    (listed,) = (await call(apps(system).ListApps, app_service_pb2.ListAppsRequest(), timeout_s=CALL_S)).apps
    assert list(listed.problems) == ["no model is called 'own' now"]


async def test_a_caller_is_told_who_it_is(system: WholeSystem) -> None:
    key = await create(system, "aider")
    shown = [
        (await system.http.get("/v2/meta/identity", headers=headers)).json()
        for headers in ({}, {"authorization": f"Bearer {key}"})
    ]
    assert shown == [{"name": "localhost", "app": ""}, {"name": "app:aider", "app": "aider"}]
    made_up = await system.http.get("/v2/meta/identity", headers={"authorization": "Bearer llorch-made-up"})
    assert (made_up.status_code, made_up.json()["error"]["code"]) == (401, "TOKEN_INVALID")


async def test_the_openai_api_lists_every_name_that_may_be_asked_for(system: WholeSystem) -> None:
    """A name of the app's own goes before the same one of the catalog, and is the app's alone."""
    file = system.folder / "any.gguf"
    file.write_bytes(smallest_model())
    for name, aliases in (("big", ["large", "tiny"]), ("old", ["older"])):
        spec = {"name": name, "source": f"file:{file}", "aliases": aliases}
        made = await system.http.post("/v2/catalog/models", json=spec)
        assert made.status_code == 200, made.text
    retire = {"state": "MODEL_STATE_RETIRED"}
    assert (await system.http.post("/v2/catalog/models/old/state", json=retire)).status_code == 200
    key = await create(system, "open-webui", models={"openai/gpt-4o": "large", "sim": "big", "tiny": "sim"})
    async with openai_client(str(system.http.base_url), api_key="none") as client:
        assert sorted([model.id async for model in client.models.list()]) == ["big", "large", "sim", "tiny"]
        for name in ("big", "large", "sim", "tiny"):
            assert (await client.models.retrieve(name)).id == name
        for name in ("openai/gpt-4o", "old", "older", "nope"):
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve(name)
    async with openai_client(str(system.http.base_url), api_key=key) as client:
        listed = [model.id async for model in client.models.list()]
        assert sorted(listed) == ["big", "large", "openai/gpt-4o", "sim", "tiny"]
        for name in listed:
            assert (await client.models.retrieve(name)).id == name
    as_app = {"authorization": f"Bearer {key}"}
    meant = {
        name: (await system.http.get(f"/v2/catalog/models/{name}", headers=as_app)).json() for name in ("sim", "tiny")
    }
    assert {name: shown["model"]["spec"]["name"] for name, shown in meant.items()} == {"sim": "big", "tiny": "sim"}


@pytest.mark.req("ORCH-1017")
async def test_sessions_are_read_listed_and_ended(system: WholeSystem) -> None:
    sessions = session_service_pb2_grpc.SessionServiceStub(system.channel)
    budget = session_pb2.SessionBudget(turns=2)
    for _ in range(2):
        await system.generate(task(session_id="chat", session_budget=budget))
    asked = session_service_pb2.GetSessionRequest(session_id="chat")
    shown = (await call(sessions.GetSession, asked, timeout_s=CALL_S)).session
    assert (shown.model, shown.turns, shown.budget.turns) == ("sim", 2, 2)
    assert shown.tokens >= 16
    assert shown.worker_id
    with pytest.raises(ResourceExhausted) as refused:
        await system.generate(task(session_id="chat"))
    assert refused.value.reason is Reason.BUDGET_SPENT
    async with acting_as(system, await create(system, "aider")) as aider:
        own = session_service_pb2_grpc.SessionServiceStub(aider.channel)
        with pytest.raises(NotFound):
            await call(own.GetSession, asked, timeout_s=CALL_S)
        await aider.generate(task(session_id="chat"))
        listed = await call(own.ListSessions, session_service_pb2.ListSessionsRequest(), timeout_s=CALL_S)
        assert [(session.app, session.turns) for session in listed.sessions] == [("aider", 1)]
    everything = await call(sessions.ListSessions, session_service_pb2.ListSessionsRequest(), timeout_s=CALL_S)
    assert [session.app for session in everything.sessions] == ["", "aider"]
    ended = session_service_pb2.DeleteSessionRequest(session_id="chat")
    for _ in everything.sessions:
        await call(sessions.DeleteSession, ended, timeout_s=CALL_S)
    with pytest.raises(NotFound) as gone:
        await call(sessions.DeleteSession, ended, timeout_s=CALL_S)
    assert gone.value.reason is Reason.SESSION_NOT_FOUND


async def test_apps_and_sessions_over_http(system: WholeSystem) -> None:
    made = await system.http.post("/v2/apps", json={"app": "aider", "models": {"gpt-4o": "sim"}})
    assert made.status_code == 200
    as_aider = {"authorization": f"Bearer {made.json()['key']}"}
    work = {"model": "gpt-4o", "session_id": "chat", "generate": {"prompt": "hello", "max_tokens": 4}}
    task_id = (await system.http.post("/v2/tasks", json=work, headers=as_aider)).json()["task_id"]
    stream = await system.http.get(f"/v2/tasks/{task_id}/events", headers=as_aider)
    assert '"type":"end"' in stream.text
    assert (await system.http.get(f"/v2/tasks/{task_id}", headers=as_aider)).json()["task"]["app"] == "aider"
    session = (await system.http.get("/v2/sessions/chat", headers=as_aider)).json()["session"]
    assert (session["app"], session["turns"]) == ("aider", 1)
    refused = await system.http.get("/v2/apps", headers=as_aider)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "NOT_PERMITTED")
    assert (await system.http.delete("/v2/apps/aider")).status_code == 200
    gone = await system.http.post("/v2/tasks", json=work, headers=as_aider)
    assert (gone.status_code, gone.json()["error"]["code"]) == (401, "TOKEN_INVALID")


@pytest.mark.req("ORCH-1025")
async def test_a_used_up_quota_is_told_with_the_time_to_come_back(system: WholeSystem) -> None:
    made = await system.http.post("/v2/apps", json={"app": "aider", "max_tokens_per_minute": 5})
    as_aider = {"authorization": f"Bearer {made.json()['key']}"}
    async with acting_as(system, made.json()["key"]) as aider:
        await aider.generate(task(max_tokens=20))
    work = {"model": "sim", "generate": {"prompt": "hello", "max_tokens": 4}}
    refused = await system.http.post("/v2/tasks", json=work, headers=as_aider)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "QUOTA_EXCEEDED")
    assert int(refused.headers["retry-after"]) > 60
