"""A model's file onto a node: client, orchestrator, a pool manager that is a process of its own, and a local server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import model_pb2, node_pb2, task_event_pb2
from llama_orch.v2.fleet_service_pb2 import PullModelResponse
from llorch.errors import LlorchError, NotFound, PermissionDenied
from llorch.sdk.async_client import AsyncClient
from llorch.sdk.failures import Unreachable
from support.download_server import DownloadServer, download_server, head, raw
from support.hub import FakeHub
from support.models import model_bytes
from support.pool_manager_process import PoolManagerProcess, pool_manager_process
from support.whole_system import WholeSystem, orchestrator_alone, task, wait_until


@pytest.fixture
async def server() -> AsyncIterator[DownloadServer]:
    async with download_server() as made:
        yield made


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with orchestrator_alone(tmp_path) as running:
        yield running


@pytest.fixture
async def client(system: WholeSystem) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(system.address) as made:
        yield made


@asynccontextmanager
async def node(
    folder: Path, system: WholeSystem, server: DownloadServer, **flags: object
) -> AsyncIterator[PoolManagerProcess]:
    """A pool manager that takes the local server for the Hub, and trusts its certificate."""
    authority = folder / "authority.pem"
    server.authority.cert_pem.write_to_path(authority)
    given: dict[str, Any] = {"download_private_hosts": "localhost", "download_ca_file": authority, **flags}
    async with pool_manager_process(folder / "node", system.address, **given) as process:
        process.environment = {"HF_ENDPOINT": here(server)}
        await process.start()
        await wait_until(lambda: has_node(system), 20)
        yield process


def here(server: DownloadServer, path: str = "") -> str:
    return f"https://localhost:{server.address[1]}{path}"


async def has_node(system: WholeSystem) -> bool:
    return any(node.state == node_pb2.NODE_STATE_READY for node in (await system.state()).nodes)


async def pull(client: AsyncClient, source: str) -> list[PullModelResponse]:
    return [answer async for answer in client.pull_model(source)]


@pytest.mark.req("POOL-2006")
async def test_a_model_of_the_hub_is_pulled_and_answers(
    tmp_path: Path, system: WholeSystem, server: DownloadServer, client: AsyncClient
) -> None:
    hub = FakeHub(server, {"x-Q4_0.gguf": model_bytes(3 * 2**20), "x-Q8_0.gguf": b""}, blobs_at="")
    async with node(tmp_path, system, server):
        *_progress, answer = await pull(client, "hf:org/repo:Q4_0")
        assert (answer.node_id, answer.progress.complete, answer.progress.done_mib) == ("garage", True, 4)
        await client.register_model("x", "hf:org/repo:Q4_0")
        events = await system.generate(task(model="x"))
        assert events[-1].WhichOneof("event") == "end"
        assert (await client.model("x")).size_mib == 4
        with pytest.raises(LlorchError, match="hf:org/repo:Q8_0"):
            await pull(client, "hf:org/repo")
    assert len(hub.cdn_authorizations) == 1


async def test_a_task_for_a_model_that_is_not_there_yet_waits_for_its_download(
    tmp_path: Path, system: WholeSystem, server: DownloadServer, client: AsyncClient
) -> None:
    server.serve("/x.gguf", model_bytes())
    async with node(tmp_path, system, server):
        await client.register_model("x", here(server, "/x.gguf"))
        events = await system.generate(task(model="x"))
        assert events[-1].WhichOneof("event") == "end"


async def test_who_waits_for_a_download_is_told_how_it_goes(
    tmp_path: Path, system: WholeSystem, server: DownloadServer, client: AsyncClient
) -> None:
    content = model_bytes(4 * 2**20)
    events: list[task_event_pb2.TaskEvent] = []
    is_told = asyncio.Event()

    async def in_two_halves(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        writer.write(content[: 2**21])
        await writer.drain()
        await is_told.wait()
        writer.write(content[2**21 :])
        await writer.drain()

    async def tells_of_it() -> bool:
        return any("downloading x to garage" in event.narration.text for event in events)

    server.answers["/x.gguf"] = in_two_halves
    async with node(tmp_path, system, server):
        await client.register_model("x", here(server, "/x.gguf"))
        stream = asyncio.create_task(system.generate(task(model="x"), events))
        await wait_until(tells_of_it)
        is_told.set()
        assert (await stream)[-1].WhichOneof("event") == "end"


async def test_why_a_model_can_not_be_had_is_told_to_who_asked(
    tmp_path: Path, system: WholeSystem, server: DownloadServer, client: AsyncClient
) -> None:
    async with node(tmp_path, system, server):
        with pytest.raises(NotFound, match="no such file"):
            await pull(client, here(server, "/x.gguf"))
        with pytest.raises(PermissionDenied, match="inside of this network"):
            await pull(client, f"https://127.0.0.1:{server.address[1]}/x.gguf")
        with pytest.raises(LlorchError, match="no model is called 'nothing'"):
            await pull(client, "nothing")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/401.gguf?token=s3cret", "does not give the file to this node"),
        ("/404.gguf?token=s3cret", "has no such file"),
        ("/page.gguf?token=s3cret", "is an HTML page"),
        ("hf:org/repo", "the Hub answers with HTTP 500 about org/repo"),
        ("hf:org/none", "the Hub has no org/none"),
    ],
)
async def test_what_a_server_answers_is_not_taken_for_an_orchestrator_that_is_away(
    tmp_path: Path, system: WholeSystem, server: DownloadServer, client: AsyncClient, source: str, says: str
) -> None:
    server.answers["/401.gguf"] = raw(head(401, {"Content-Length": "0"}))
    server.answers["/api/models/org/repo"] = raw(head(500, {"Content-Length": "0"}))
    server.answers["/api/models/org/none"] = raw(head(404, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"}))
    server.serve("/page.gguf", b"<!DOCTYPE html><html>" + bytes(600))
    async with node(tmp_path, system, server) as process:
        with pytest.raises(LlorchError, match=says) as refused:
            await pull(client, here(server, source) if source.startswith("/") else source)
        assert not isinstance(refused.value, Unreachable)
        assert "staging_failed" in process.log()
        assert ("token=[redacted]" in process.log()) == ("s3cret" in source)
        assert "s3cret" not in process.log()


async def test_a_pool_manager_that_was_killed_goes_on_with_its_download(
    tmp_path: Path, system: WholeSystem, server: DownloadServer, client: AsyncClient
) -> None:
    content = model_bytes(80 * 2**20)
    half_sent, reference = asyncio.Event(), here(server, "/x.gguf")
    file = server.serve("/x.gguf", content)

    async def then_silence(request: object, writer: asyncio.StreamWriter) -> None:
        writer.write(f'HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nETag: "v1"\r\n\r\n'.encode())
        writer.write(content[: 72 * 2**20])
        await writer.drain()
        half_sent.set()
        await asyncio.Event().wait()

    server.answers["/x.gguf"] = then_silence
    async with node(tmp_path, system, server) as process:
        pulling = asyncio.create_task(pull(client, reference))
        await half_sent.wait()
        await wait_until(lambda: some_is_certain(process), 20)
        await process.kill()
        with pytest.raises(LlorchError):
            await pulling
        server.answers["/x.gguf"] = file
        await process.start()
        await process.snapshot()
        await wait_until(lambda: has_node(system), 20)
        answers = await pull(client, reference)
        assert answers[-1].progress.complete
    assert server.requests[-1].offset >= 64 * 2**20


async def some_is_certain(process: PoolManagerProcess) -> bool:
    return any((process.folder / "data" / "models" / "parts").glob("*.json"))


async def test_the_models_of_a_folder_are_there_by_themselves(
    tmp_path: Path, system: WholeSystem, server: DownloadServer, client: AsyncClient
) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    (folder / "coder.gguf").write_bytes(model_bytes())
    for number in range(2):
        (folder / f"big-0000{number + 1}-of-00002.gguf").write_bytes(model_bytes(split=(number, 2)))
    async with node(tmp_path, system, server, models_dir=folder):
        await wait_until(lambda: are_known(client, "big", "coder"))
        model = await client.model("coder")
        assert model.spec.source == "dir:coder.gguf"
        assert model.origins["source"] == model_pb2.VALUE_ORIGIN_NODE
        for name in ("coder", "big"):
            events = await system.generate(task(model=name))
            assert events[-1].WhichOneof("event") == "end"


async def are_known(client: AsyncClient, *names: str) -> bool:
    return {model.spec.name for model in await client.models()} >= set(names)
