"""A download in a process of its own, which a test may kill: FOLDER PORT AUTHORITY PATH."""

import asyncio
import sys
from pathlib import Path

from llorch.background import TaskSupervisor
from pool_managerd.models.download import download, part_file
from pool_managerd.models.download.network import Network, tls_context
from pool_managerd.models.download.policy import DownloadPolicy
from support.models import Downloads


async def main(folder: str, port: str, authority: str, path: str) -> None:
    # Small files are to leave something behind, too.
    download.WRITE_BYTES, part_file.SYNC_EVERY_BYTES = 2**16, 2**18
    network = Network(tls_context(Path(authority)))
    policy = DownloadPolicy(private_hosts=("localhost",))
    async with TaskSupervisor("download") as tasks:
        downloads = await Downloads(Path(folder), network, tasks, policy).open()
        await downloads.shelf.stage(f"https://localhost:{port}{path}").wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
