"""A token that is set, through all daemons of one machine: who shows it, and who is let in without."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import orchestratord.app
from llama_orch.v2 import (
    app_pb2,
    app_service_pb2,
    app_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    node_link_service_pb2,
    node_link_service_pb2_grpc,
    pool_manager_service_pb2,
    pool_manager_service_pb2_grpc,
)
from llorch.errors import Reason, Unauthenticated
from llorch.rpc.client import DuplexCall, call, open_channel
from orchestratord.settings import OrchestratorSettings
from support.free_ports import free_port
from support.streams import check_stream
from support.whole_system import (
    CALL_S,
    SILENT_S,
    WholeSystem,
    another_node,
    gguf,
    orchestrator_alone,
    task,
    wait_until,
    whole_system,
)
from worker_orcd.engines.sim.tokens import sim_text

TOKEN, OTHER = "a-long-secret-of-the-house", "another-secret-of-the-house"
Link = DuplexCall[node_link_service_pb2.ConnectRequest, node_link_service_pb2.ConnectResponse]
HTTP_WAYS = ("/v2/state", "/v1/models", "/v2/meta/metrics", "/v2/apps", "/v2/nothing")


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path, token=TOKEN) as running:
        yield running


@asynccontextmanager
async def without_token(system: WholeSystem) -> AsyncIterator[WholeSystem]:
    """The same system for a program of this machine that shows nothing."""
    async with (
        httpx.AsyncClient(base_url=system.http.base_url, timeout=SILENT_S, trust_env=False) as http,
        open_channel(system.address) as channel,
    ):
        yield WholeSystem(system.address, http, channel, system.folder)


async def status_of_http(system: WholeSystem, path: str, headers: Mapping[str, str] | None = None) -> int:
    return (await system.http.get(path, headers=headers)).status_code


async def test_all_daemons_work_together_with_one_token(guarded: WholeSystem) -> None:
    assert check_stream(await guarded.generate(task())) == sim_text(7, 0, 8)
    assert await status_of_http(guarded, "/v2/state") == 200
    assert "llorch_tasks" in (await guarded.http.get("/v2/meta/metrics")).text


async def test_a_program_of_this_machine_without_it_gets_nowhere(guarded: WholeSystem) -> None:
    async with without_token(guarded) as bare:
        for path in HTTP_WAYS:
            assert await status_of_http(bare, path) == 401
            assert await status_of_http(bare, path, {"x-llorch-client": "loopback"}) == 401
        for ask in (bare.state(), bare.generate(task()), bare.submit(task()), create_app(bare)):
            with pytest.raises(Unauthenticated) as refused:
                await ask
            assert refused.value.reason is Reason.TOKEN_MISSING
    assert (await guarded.http.get("/v2/apps")).json().get("apps", []) == []


async def test_claims_of_a_caller_about_itself_help_it_nowhere(guarded: WholeSystem) -> None:
    claims = (("x-llorch-client", "loopback"),)
    async with open_channel(guarded.address) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        with pytest.raises(Unauthenticated):
            await call(stub.GetState, fleet_service_pb2.GetStateRequest(), timeout_s=CALL_S, metadata=claims)


async def test_probes_of_this_machine_need_none_and_a_wrong_one_is_refused(guarded: WholeSystem) -> None:
    async with open_channel(guarded.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]  # it has no types
        healthy = await call(stub.Check, health_pb2.HealthCheckRequest(), timeout_s=CALL_S)
        assert healthy.status == health_pb2.HealthCheckResponse.SERVING
        for metadata in ((("x-llorch-client", "remote"),), (("authorization", f"Bearer {OTHER}"),)):
            with pytest.raises(Unauthenticated):
                await call(stub.Check, health_pb2.HealthCheckRequest(), timeout_s=CALL_S, metadata=metadata)
    async with without_token(guarded) as bare:
        assert await status_of_http(bare, "/healthz") == await status_of_http(bare, "/readyz") == 200


async def test_a_pool_manager_asks_for_it_too(guarded: WholeSystem) -> None:
    address = (guarded.folder / "pool-managerd").read_text().strip()  # a local file, in a test
    request = pool_manager_service_pb2.PoolManagerServiceGetStateRequest()
    for token, reason in ((None, Reason.TOKEN_MISSING), (OTHER, Reason.TOKEN_INVALID)):
        async with open_channel(address, token=token) as channel:
            stub = pool_manager_service_pb2_grpc.PoolManagerServiceStub(channel)
            with pytest.raises(Unauthenticated) as refused:
                await call(stub.GetState, request, timeout_s=CALL_S)
            assert refused.value.reason is reason


async def test_where_auth_is_optional_programs_of_this_machine_need_none(tmp_path: Path) -> None:
    async with whole_system(tmp_path, token=TOKEN, auth_optional=True) as system, without_token(system) as bare:
        assert check_stream(await bare.generate(task())) == sim_text(7, 0, 8)
        assert await status_of_http(bare, "/v2/state") == 200
        assert await status_of_http(bare, "/v2/state", {"via": "1.1 proxy"}) == 401
        assert await status_of_http(bare, "/v2/state", {"authorization": f"Bearer {OTHER}"}) == 401
        await create_app(bare)


@pytest.mark.req("POOL-2007")
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("token", [None, OTHER])
async def test_a_pool_manager_without_the_token_never_joins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str | None, optional: bool
) -> None:
    async with whole_system(tmp_path, token=TOKEN, auth_optional=optional) as system:
        capsys.readouterr()
        joining = another_node(system, "attic", token=token, auth_optional=False)
        waiting = asyncio.create_task(joining.__aenter__())
        try:
            said = ""

            async def is_refused() -> bool:
                nonlocal said
                said += "".join(capsys.readouterr())
                return "orchestrator_refuses_this_node" in said

            await wait_until(is_refused)
            assert "LLORCH_POOL_MANAGER_TOKEN" in said
            assert [node.node_id for node in (await system.state()).nodes] == ["garage"]
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def test_a_node_link_without_the_token_is_refused_before_its_first_report(guarded: WholeSystem) -> None:
    async with open_channel(guarded.address) as channel:
        stub = node_link_service_pb2_grpc.NodeLinkServiceStub(channel)
        link: Link = DuplexCall(stub.Connect, timeout_s=CALL_S)
        async with link:
            with pytest.raises(Unauthenticated):
                await anext(aiter(link))


async def test_a_node_whose_token_the_orchestrator_lacks_is_named_with_the_remedy(tmp_path: Path) -> None:
    """The other way round: the node is let in, but takes no commands."""
    async with orchestrator_alone(tmp_path) as system, another_node(system, "attic", token=OTHER):
        await system.register("sim", f"file:{gguf(tmp_path)}")
        last = (await system.generate(task()))[-1]
    assert last.WhichOneof("event") == "error"
    assert "node 'attic'" in last.error.message
    assert "node_token" in last.error.message


async def test_metrics_of_their_own_listener_ask_for_it(tmp_path: Path) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with_token = {"authorization": f"Bearer {TOKEN}"}
    for optional, bare in ((False, 401), (True, 200)):
        settings = {"token": TOKEN, "auth_optional": optional, "metrics_bind": bind}
        async with serving_metrics(tmp_path / str(optional), settings), httpx.AsyncClient(trust_env=False) as http:
            url = f"http://{bind}/metrics"
            assert (await http.get(url)).status_code == bare
            assert (await http.get(url, headers={"x-forwarded-for": "192.0.2.7"})).status_code == 401
            assert (await http.get(url, headers={"authorization": "Bearer wrong"})).status_code == 401
            assert (await http.get(url, headers=with_token)).status_code == 200


@asynccontextmanager
async def serving_metrics(folder: Path, settings: Mapping[str, object]) -> AsyncIterator[None]:
    folder.mkdir()  # noqa: ASYNC240  # a local folder, in a test
    file, stop = folder / "address", asyncio.Event()
    chosen = {"bind": "127.0.0.1:0", "address_file": file, "data_dir": folder / "data", "package_models": False}
    running = asyncio.create_task(
        orchestratord.app.run(OrchestratorSettings.model_validate({**chosen, **settings}), stop)
    )

    async def serves() -> bool:
        return file.exists() or running.done()  # a local file, in a test

    try:
        await wait_until(serves)
        yield
    finally:
        stop.set()
        await running


async def create_app(system: WholeSystem) -> str:
    request = app_service_pb2.CreateAppRequest(app=app_pb2.App(app="aider"))
    answer = await call(app_service_pb2_grpc.AppServiceStub(system.channel).CreateApp, request, timeout_s=CALL_S)
    return answer.key
