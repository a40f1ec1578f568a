"""Downloads into the cache, from a server of the test's own: what comes, what is gone on with, who shares what."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from llorch.background import TaskSupervisor
from llorch.errors import FailedPrecondition, InvalidArgument, LlorchError, NotFound, PermissionDenied, Reason
from pool_managerd.models.download.policy import DownloadPolicy
from support.download_server import DownloadServer, Internet, download_server
from support.models import Downloads, model_bytes


@pytest.fixture
async def server() -> AsyncIterator[DownloadServer]:
    async with download_server() as made:
        yield made


@pytest.fixture
async def downloads(tmp_path: Path, server: DownloadServer) -> AsyncIterator[Downloads]:
    async with TaskSupervisor("test") as tasks:
        yield await Downloads(tmp_path / "models", Internet(server).network(), tasks).open()


@pytest.mark.req("POOL-2006")
async def test_a_file_comes_whole_and_is_kept_by_its_digest(server: DownloadServer, downloads: Downloads) -> None:
    file = server.serve("/tiny.gguf", model_bytes())
    reference = server.url("/tiny.gguf")
    model = await downloads.shelf.stage(reference).wait()
    assert model.path.read_bytes() == file.content
    assert model.digest == file.sha256
    assert model.path.name == "tiny.gguf"
    assert model.path.resolve().name == file.sha256
    assert downloads.shelf.models() == (model,)
    assert (await downloads.shelf.find(reference)) == model


async def test_many_who_want_the_same_share_one_download(server: DownloadServer, downloads: Downloads) -> None:
    server.serve("/tiny.gguf", model_bytes())
    reference = server.url("/tiny.gguf")
    models = await asyncio.gather(*(downloads.shelf.stage(reference).wait() for _ in range(20)))
    assert len(set(map(id, models))) == 1
    assert len(server.requests) == 1


async def test_what_is_here_is_not_fetched_again(server: DownloadServer, downloads: Downloads) -> None:
    server.serve("/tiny.gguf", model_bytes())
    await downloads.shelf.stage(server.url("/tiny.gguf")).wait()
    await downloads.shelf.stage(server.url("/tiny.gguf")).wait()
    assert len(server.requests) == 1


async def test_a_look_for_its_path_is_no_use_of_a_file(server: DownloadServer, downloads: Downloads) -> None:
    server.serve("/tiny.gguf", model_bytes())
    reference = server.url("/tiny.gguf")
    with pytest.raises(NotFound) as refused:
        await downloads.shelf.path_of(reference)
    assert refused.value.reason is Reason.MODEL_FILE_MISSING
    assert server.requests == []
    model = await downloads.shelf.stage(reference).wait()
    (record,) = downloads.folder.glob("models/*/model.json")
    os.utime(record, (1, 1))
    assert await downloads.shelf.path_of(reference) == model.path
    assert record.stat().st_mtime == 1
    await downloads.shelf.find(reference)
    assert record.stat().st_mtime > 1


async def test_a_look_for_the_path_of_a_file_that_lies_here_is_not_told(tmp_path: Path, downloads: Downloads) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(model_bytes())
    assert await downloads.shelf.path_of(f"file:{path}") == path
    assert downloads.shelf.models() == ()
    with pytest.raises(NotFound):
        await downloads.shelf.path_of(f"file:{tmp_path}/none.gguf")
    with pytest.raises(NotFound, match="models_dir"):
        await downloads.shelf.path_of("dir:own.gguf")
    with pytest.raises(InvalidArgument):
        await downloads.shelf.path_of("own.gguf")


async def test_two_references_to_one_file_keep_it_once(server: DownloadServer, downloads: Downloads) -> None:
    file = server.serve("/a.gguf", model_bytes())
    server.serve("/b.gguf", file.content)
    first, second = server.url("/a.gguf"), server.url(f"/b.gguf#sha256={file.sha256}")
    await downloads.shelf.stage(first).wait()
    await downloads.shelf.stage(second).wait()
    assert len(list((downloads.folder / "blobs").iterdir())) == 1
    await downloads.shelf.forget(first, in_use=False)
    assert (await downloads.shelf.find(second)).path.read_bytes() == file.content
    await downloads.shelf.forget(second, in_use=False)
    assert downloads.files == []


async def test_a_broken_connection_is_gone_on_with_where_it_broke(server: DownloadServer, downloads: Downloads) -> None:
    file = server.serve("/tiny.gguf", model_bytes(6 * 2**20), cuts=[4 * 2**20], piece=2**16)
    model = await downloads.shelf.stage(server.url("/tiny.gguf")).wait()
    assert model.digest == file.sha256
    first, second = server.requests
    assert first.offset == 0
    assert 2 * 2**20 <= second.offset <= 4 * 2**20
    assert second.headers["if-range"] == file.etag


async def test_the_next_life_goes_on_with_what_the_last_one_left(
    server: DownloadServer, downloads: Downloads, tmp_path: Path
) -> None:
    file = server.serve("/tiny.gguf", model_bytes(2**21), cuts=[2**20] + [0] * 20, piece=2**16)
    reference = server.url("/tiny.gguf")
    with pytest.raises(LlorchError):
        await downloads.shelf.stage(reference).wait()
    assert [path.suffix for path in downloads.files] == [".json", ".part"]
    file.cuts.clear()
    async with TaskSupervisor("next life") as tasks:
        again = await Downloads(downloads.folder, downloads.network, tasks).open()
        assert (await again.shelf.stage(reference).wait()).digest == file.sha256
    assert 0 < server.requests[-1].offset <= 2**20


async def test_a_file_that_changed_meanwhile_comes_from_its_beginning(
    server: DownloadServer, downloads: Downloads
) -> None:
    file = server.serve("/tiny.gguf", model_bytes(2**21), cuts=[2**20], piece=2**16)
    changed = replace(file, content=model_bytes(2**21, seed=2), etag='"v2"')

    async def then_another(request: object, writer: asyncio.StreamWriter) -> None:
        server.answers["/tiny.gguf"] = changed
        await file(request, writer)  # type: ignore[arg-type]  # it is one

    server.answers["/tiny.gguf"] = then_another
    assert (await downloads.shelf.stage(server.url("/tiny.gguf")).wait()).digest == changed.sha256


async def test_pieces_that_do_not_fit_together_are_fetched_anew(server: DownloadServer, downloads: Downloads) -> None:
    """The server has no validator, and serves another file from the second connection on: the digest notices."""
    right = model_bytes(2**21)
    file = server.serve("/tiny.gguf", model_bytes(2**21, seed=2), etag="", cuts=[2**20], piece=2**16)

    async def then_the_right_one(request: object, writer: asyncio.StreamWriter) -> None:
        answer = replace(file, cuts=list(file.cuts))
        file.cuts, file.content = [], right
        await answer(request, writer)  # type: ignore[arg-type]  # it is one

    server.answers["/tiny.gguf"] = then_the_right_one
    digest = replace(file, content=right).sha256
    model = await downloads.shelf.stage(server.url(f"/tiny.gguf#sha256={digest}")).wait()
    assert model.path.read_bytes() == right
    assert [request.offset > 0 for request in server.requests] == [False, True, False]


async def test_without_a_validator_a_broken_download_begins_anew(server: DownloadServer, downloads: Downloads) -> None:
    server.serve("/tiny.gguf", model_bytes(2**21), etag="", cuts=[2**20], piece=2**16)
    await downloads.shelf.stage(server.url("/tiny.gguf")).wait()
    assert [request.offset for request in server.requests] == [0, 0]


async def test_a_server_without_ranges_is_read_from_the_beginning(server: DownloadServer, downloads: Downloads) -> None:
    file = server.serve("/tiny.gguf", model_bytes(2**21), ranges=False, cuts=[2**20], piece=2**16)
    assert (await downloads.shelf.stage(server.url("/tiny.gguf")).wait()).digest == file.sha256


async def test_a_split_model_comes_as_one(server: DownloadServer, downloads: Downloads) -> None:
    for number in range(3):
        content = model_bytes(100_000, seed=number, split=(number, 3))
        server.serve(f"/m/big-0000{number + 1}-of-00003.gguf", content)
    model = await downloads.shelf.stage(server.url("/m/big-00001-of-00003.gguf")).wait()
    assert model.facts.files == 3
    assert sorted(path.name for path in model.path.parent.glob("*.gguf")) == [
        f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]


async def test_a_split_model_with_a_part_missing_is_no_model(server: DownloadServer, downloads: Downloads) -> None:
    server.serve("/big-00001-of-00002.gguf", model_bytes(split=(0, 2)))
    with pytest.raises(NotFound) as refused:
        await downloads.shelf.stage(server.url("/big-00001-of-00002.gguf")).wait()
    assert refused.value.reason is Reason.MODEL_FILE_MISSING
    assert downloads.shelf.models() == ()
    assert list((downloads.folder / "blobs").iterdir()) == []


async def test_progress_is_told_with_its_total(server: DownloadServer, downloads: Downloads) -> None:
    file = server.serve("/tiny.gguf", model_bytes(2**21), piece=2**16)
    staging = downloads.shelf.stage(server.url("/tiny.gguf"))
    await staging.wait()
    assert (staging.progress.done, staging.progress.total) == (len(file.content), len(file.content))


async def test_a_download_that_no_caller_waits_for_ends_and_can_be_resumed(
    server: DownloadServer, downloads: Downloads
) -> None:
    begun = asyncio.Event()

    async def endless(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\nETag: "v"\r\n\r\n' + model_bytes())
        await writer.drain()
        begun.set()
        await asyncio.Event().wait()

    server.answers["/tiny.gguf"] = endless
    staging = downloads.shelf.stage(server.url("/tiny.gguf"))
    staging._alone_s = 0.0
    follower = asyncio.create_task(staging.wait())
    await begun.wait()
    follower.cancel()
    await asyncio.wait([follower])
    async with asyncio.timeout(5):
        await staging._over.wait()
    assert staging.failure is not None
    assert staging.failure.reason is Reason.CANCELLED


async def test_the_least_recently_used_make_room_and_those_in_use_never(server: DownloadServer, tmp_path: Path) -> None:
    size = len(model_bytes())
    async with TaskSupervisor("test") as tasks:
        downloads = Downloads(tmp_path / "models", Internet(server).network(), tasks, budget=int(2.5 * size))
        await downloads.open()
        a, b, c, d = (server.url(f"/{name}.gguf") for name in "abcd")
        for number, name in enumerate("abcd"):
            server.serve(f"/{name}.gguf", model_bytes(seed=number))
        await downloads.shelf.stage(a).wait()
        await downloads.shelf.stage(b).wait()
        await downloads.shelf.find(a)
        downloads.in_use = {a}
        await downloads.shelf.stage(c).wait()
        assert {model.reference for model in downloads.shelf.models()} == {a, c}
        downloads.in_use = {a, c}
        with pytest.raises(LlorchError, match="no room") as refused:
            await downloads.shelf.stage(d).wait()
        assert "model_cache_mib" in refused.value.message
        assert {model.reference for model in downloads.shelf.models()} == {a, c}


async def test_what_is_in_use_or_coming_is_not_removed(server: DownloadServer, downloads: Downloads) -> None:
    server.serve("/tiny.gguf", model_bytes())
    reference = server.url("/tiny.gguf")
    staging = downloads.shelf.stage(reference)
    with pytest.raises(FailedPrecondition, match="being staged"):
        await downloads.shelf.forget(reference, in_use=False)
    await staging.wait()
    await asyncio.sleep(0)
    with pytest.raises(FailedPrecondition) as refused:
        await downloads.shelf.forget(reference, in_use=True)
    assert refused.value.reason is Reason.MODEL_IN_USE


async def test_the_cache_is_there_after_a_restart_and_what_is_broken_in_it_goes(
    server: DownloadServer, downloads: Downloads
) -> None:
    for number, name in enumerate("ab"):
        server.serve(f"/{name}.gguf", model_bytes(seed=number))
    kept = await downloads.shelf.stage(server.url("/a.gguf")).wait()
    broken = await downloads.shelf.stage(server.url("/b.gguf")).wait()
    broken.path.resolve().unlink()
    (downloads.folder / "blobs" / ("0" * 64)).write_bytes(b"an orphan")
    (downloads.folder / "models" / "half").mkdir()
    async with TaskSupervisor("next life") as tasks:
        again = await Downloads(downloads.folder, downloads.network, tasks).open()
        assert [model.reference for model in again.shelf.models()] == [kept.reference]
        assert sorted(path.name for path in (downloads.folder / "blobs").iterdir()) == [kept.digest]


async def test_a_cache_that_can_not_be_is_named(server: DownloadServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with TaskSupervisor("test") as tasks:
        downloads = Downloads(tmp_path / "file" / "models", Internet(server).network(), tasks)
        with pytest.raises(InvalidArgument, match="model_cache_dir"):
            await downloads.open()


async def test_a_private_host_is_reached_if_the_owner_says_so(server: DownloadServer, tmp_path: Path) -> None:
    internet = Internet(server, {"nas.lan": [["192.168.1.5"]]})
    server.serve("/tiny.gguf", model_bytes())
    reference = server.url("/tiny.gguf", "nas.lan")
    async with TaskSupervisor("test") as tasks:
        strict = await Downloads(tmp_path / "strict", internet.network(), tasks).open()
        with pytest.raises(PermissionDenied, match="download_private_hosts"):
            await strict.shelf.stage(reference).wait()
        assert internet.dialled == []
        policy = DownloadPolicy(private_hosts=("nas.lan",))
        kind = await Downloads(tmp_path / "kind", internet.network(), tasks, policy).open()
        await kind.shelf.stage(reference).wait()
        assert internet.dialled == [("192.168.1.5", 443)]
