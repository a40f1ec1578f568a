"""Workers as processes of their own, with a model that computes on the CPU."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from llama_orch.v2 import run_pb2, worker_service_pb2, worker_service_pb2_grpc
from llorch.errors import ResourceExhausted
from llorch.rpc.client import open_channel, open_stream

READY_WITHIN_S = 60.0
SILENT_S = 60.0

Stub = worker_service_pb2_grpc.WorkerServiceStub


@asynccontextmanager
async def worker_on_cpu(folder: Path, model_path: Path, **flags: object) -> AsyncIterator[Stub]:
    """One thread each: llama.cpp's threads wait for each other by spinning, and cores are few."""
    address_file = folder / "address"
    given = {"model_path": model_path, "device": "cpu", "threads": 1, "address_file": address_file, **flags}
    arguments = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker_orcd", "--allow-cpu", *arguments),
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stderr=log,
            start_new_session=True,
        )
    try:
        await _wait_until_exists(process, address_file)
        channel = open_channel(address_file.read_text().strip())
        try:
            yield Stub(channel)
        finally:
            await channel.close(None)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def execute(stub: Stub, spec: run_pb2.RunSpec) -> tuple[list[int], run_pb2.RunEnd]:
    """One run: its token ids and its end. Waits for a slot: that of a cancelled run takes a step to become free."""
    while True:
        try:
            return await _execute(stub, spec)
        except ResourceExhausted:
            await asyncio.sleep(0.02)


async def _execute(stub: Stub, spec: run_pb2.RunSpec) -> tuple[list[int], run_pb2.RunEnd]:
    token_ids: list[int] = []
    end = run_pb2.RunEnd()
    request = worker_service_pb2.ExecuteRequest(spec=spec)
    async with open_stream(stub.Execute, request, idle_timeout_s=SILENT_S) as answers:
        async for answer in answers:
            token_ids += [token_id for entry in answer.delta.entries for token_id in entry.token_ids]
            end = answer.delta.end
    return token_ids, end


async def _wait_until_exists(process: asyncio.subprocess.Process, address_file: Path) -> None:
    async with asyncio.timeout(READY_WITHIN_S):
        while not os.path.exists(address_file):  # noqa: ASYNC240, PTH110  another process writes it
            assert process.returncode is None, "the worker ended before it was ready; its log says why"
            await asyncio.sleep(0.02)
