"""Downloads that are cut off at any byte, or whose process is killed: each ends as the right file, and nothing that is
not whole ever has a final name.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from llorch.background import TaskSupervisor
from pool_managerd.models.download import download, part_file
from pool_managerd.models.download.network import Network, tls_context
from pool_managerd.models.download.policy import DownloadPolicy
from support import chaos_count
from support.download_server import DownloadServer, Internet, Request, ServedFile, download_server, head
from support.models import Downloads, model_bytes

CUTS = chaos_count.of(100)
KILLS = chaos_count.of(30)
SIZE = 3 * 2**20
PATH = "/tiny.gguf"
LOCAL = DownloadPolicy(private_hosts=("localhost",))


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file were a hundred times larger: it goes to the disk in more pieces."""
    monkeypatch.setattr(download, "WRITE_BYTES", 2**16)
    monkeypatch.setattr(part_file, "SYNC_EVERY_BYTES", 2**18)


@pytest.fixture
async def server() -> AsyncIterator[DownloadServer]:
    async with download_server() as made:
        yield made


@dataclass
class Moody(ServedFile):
    """Every connection is cut where the test's dice say, until it has been cut often enough; it ends in one way or
    another. Some servers have no ranges, no validator, or get another file on the way.
    """

    cuts_left: int = 0
    dice: random.Random | None = None
    next_content: bytes = b""

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        assert self.dice is not None
        if self.cuts_left:
            self.cuts_left -= 1
            self.cuts = [self.dice.randrange(len(self.content) - request.offset)]
        elif self.next_content:
            self.content, self.etag, self.next_content = self.next_content, '"v2"', b""
        await super().__call__(request, writer)


async def all_but_the_end(content: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, {"Content-Length": str(len(content)), "ETag": '"v1"'}))
    writer.write(content[:-1])
    await writer.drain()
    await asyncio.Event().wait()


async def wait_arrived(folder: Path, size: int) -> None:
    """Until so much of the file is on disk."""
    async with asyncio.timeout(30):
        while sum(part.stat().st_size for part in (folder / "parts").glob("*.part")) < size:
            await asyncio.sleep(0.001)


def whole_files(folder: Path) -> Iterator[Path]:
    """Everything with a final name; none may be anything but what its name says."""
    for blob in (folder / "blobs").iterdir():
        assert sha256(blob.read_bytes()).hexdigest() == blob.name
        yield blob
    for link in (folder / "models").glob("*/*.gguf"):
        assert link.exists()


@pytest.mark.req("POOL-2006")
@pytest.mark.timeout(600)
async def test_a_download_that_is_cut_anywhere_ends_as_the_right_file(server: DownloadServer, tmp_path: Path) -> None:
    resumed = 0
    for number in range(CUTS):
        dice = random.Random(number)  # noqa: S311  it has to be repeatable
        file = Moody(
            model_bytes(SIZE, seed=number),
            piece=2**15,
            ranges=dice.random() < 0.9,
            etag=dice.choice(('"v1"', '"v1"', "", 'W/"weak"')),
            dice=dice,
            cuts_left=dice.randint(1, 4),
        )
        if file.etag == '"v1"' and dice.random() < 0.2:
            file.next_content = model_bytes(SIZE, seed=number + 1_000_000)
        right = sha256(file.next_content or file.content).hexdigest()
        knows_digest = not file.next_content and dice.random() < 0.5
        server.answers[PATH] = file
        server.requests.clear()
        folder = tmp_path / str(number)
        async with TaskSupervisor("test") as tasks:
            downloads = await Downloads(folder, Internet(server).network(), tasks).open()
            source = server.url(PATH) + (f"#sha256={right}" if knows_digest else "")
            model = await downloads.shelf.stage(source).wait()
        assert model.digest == right, f"cut {number}"
        assert [blob.name for blob in whole_files(folder)] == [right], f"cut {number}"
        assert not list((folder / "parts").iterdir())
        resumed += any(request.offset for request in server.requests)
    assert resumed >= CUTS // 3, "downloads that always begin anew prove nothing about resuming"


@pytest.mark.req("POOL-2006")
@pytest.mark.timeout(600)
async def test_a_download_whose_process_is_killed_is_gone_on_with(server: DownloadServer, tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    server.authority.cert_pem.write_to_path(authority)
    content = model_bytes(SIZE)
    dice = random.Random(KILLS)  # noqa: S311  it has to be repeatable
    resumed = 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        server.answers[PATH] = lambda _, writer: all_but_the_end(content, writer)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.download_process", str(folder), str(server.address[1])),
            *(str(authority), PATH),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await wait_arrived(folder, dice.randrange(SIZE - 2**17))
        process.kill()
        await process.wait()
        assert list(whole_files(folder)) == [], f"kill {number}"
        server.answers[PATH] = ServedFile(content)
        async with TaskSupervisor("next life") as tasks:
            downloads = await Downloads(folder, Network(tls_context(authority)), tasks, LOCAL).open()
            model = await downloads.shelf.stage(f"https://localhost:{server.address[1]}{PATH}").wait()
        assert [blob.name for blob in whole_files(folder)] == [model.digest]
        assert model.digest == sha256(content).hexdigest(), f"kill {number}"
        resumed += server.requests[-1].offset > 0
    assert resumed >= KILLS // 2, "downloads that always begin anew prove nothing about resuming"
