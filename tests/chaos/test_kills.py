"""What is killed under `llorch up` while it answers: no client hangs, and no answer looks whole that is not."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from llama_orch.v2 import task_pb2, task_service_pb2, task_service_pb2_grpc
from llorch.errors import LlorchError
from llorch.rpc.client import open_channel, open_stream
from support import beside_each_other
from support.up import Up, running_up

ENDS_WITHIN_S = 5.0
TOKENS = 300
"""15 seconds of them: longer than a worker may be silent, and than a model takes to be loaded again."""
READ_WITHIN_S = 60.0


@asynccontextmanager
async def simulated(folder: Path) -> AsyncIterator[Up]:
    arguments = ("--simulate-gpu", "RTX 3090:24GiB", "--sim", '{"decode_tokens_per_s": 20}')
    async with running_up(folder, *arguments) as up:
        await up.ready()
        yield up


async def read_grpc(address: str, streams: asyncio.Event) -> str:
    """How the stream ended: the terminal's kind, or the reason of the status."""
    work = task_pb2.GenerateWork(prompt="a long story", max_tokens=TOKENS)
    request = task_service_pb2.GenerateRequest(task=task_pb2.TaskSpec(model="smollm2", generate=work))
    channel = open_channel(address)
    kind = ""
    try:
        async with open_stream(task_service_pb2_grpc.TaskServiceStub(channel).Generate, request) as answers:
            async for answer in answers:
                kind = answer.event.WhichOneof("event") or ""
                if kind == "tokens":
                    streams.set()
    except LlorchError as error:
        return error.reason
    finally:
        await channel.close()
    return kind


async def read_sse(url: str, streams: asyncio.Event) -> str:
    """How the stream ended: the last message's type, or the name of the transport's error."""
    body = {"model": "smollm2", "generate": {"prompt": "a long story", "max_tokens": TOKENS}}
    kind = ""
    async with httpx.AsyncClient(timeout=READ_WITHIN_S, trust_env=False) as http:
        try:
            async with http.stream("POST", f"{url}/v2/generate", json=body) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        kind = json.loads(line[5:])["type"]
                        if kind == "token":
                            streams.set()
        except httpx.TransportError as error:
            return type(error).__name__
    return kind


async def readers(up: Up) -> list[asyncio.Task[str]]:
    """One reader per door; both have seen output when this returns."""
    url = (await up.read_until(r"HTTP +(\S+)")).group(1)
    address = (await up.read_until(r"gRPC +(\S+)")).group(1)
    over_grpc, over_sse = asyncio.Event(), asyncio.Event()
    reading = [asyncio.create_task(read_grpc(address, over_grpc)), asyncio.create_task(read_sse(url, over_sse))]
    async with asyncio.timeout(30):
        await over_grpc.wait()
        await over_sse.wait()
    return reading


async def endings(reading: list[asyncio.Task[str]], within_s: float) -> list[str]:
    async with asyncio.timeout(within_s):
        return list(await asyncio.gather(*reading))


def find(up: Up, program: str) -> psutil.Process:
    return up.family()[program]


@pytest.mark.req("TEST-7003", "POOL-2005")
async def test_streams_go_on_when_their_worker_or_its_pool_manager_is_killed_or_stopped(tmp_path: Path) -> None:
    await beside_each_other.run_all(
        tmp_path,
        {
            "a worker is killed": partial(costs_a_pause, signal.SIGKILL),
            "a worker is stopped": partial(costs_a_pause, signal.SIGSTOP),
            "a pool manager is killed": is_not_heard_of,
        },
    )


async def costs_a_pause(how: signal.Signals, folder: Path) -> None:
    """The model is loaded again, since there is no other worker of it."""
    async with simulated(folder) as up:
        reading = await readers(up)
        find(up, "worker_orcd").send_signal(how)
        assert await endings(reading, READ_WITHIN_S) == ["end", "end"]
        up.process.terminate()
        assert await up.end() == 0


async def is_not_heard_of(folder: Path) -> None:
    async with simulated(folder) as up:
        reading = await readers(up)
        worker = find(up, "worker_orcd")
        find(up, "pool_managerd").kill()
        await up.read_until("(?s)takes its models over.*pool-managerd  answers")
        assert find(up, "worker_orcd") == worker
        assert await endings(reading, READ_WITHIN_S) == ["end", "end"]


@pytest.mark.req("TEST-7003")
@pytest.mark.parametrize("program", ["gatewayd", "orchestratord"])
async def test_a_killed_daemon_leaves_no_hung_client(tmp_path: Path, program: str) -> None:
    """`llorch up` ends with it."""
    async with simulated(tmp_path) as up:
        reading = await readers(up)
        find(up, program).kill()
        ended = await endings(reading, ENDS_WITHIN_S)
        assert "end" not in ended, "an answer that was cut short does not look whole"
        assert await up.end() == 1
