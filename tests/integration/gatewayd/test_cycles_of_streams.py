"""What the gateway makes for a stream is freed as the stream ends.

Python's collector would come to it only now and then, and what has grown old before that waits for one in tens of
thousands of streams. Not here: a stream that fails, since grpc.aio keeps the error that a server ends a call with in a
cycle, and what the error has passed through.
"""

import asyncio
import json
from typing import Any

import pytest

from support.cycles import cycles_left_by

from .conftest import StartGateway
from .fake_orchestrator import FakeOrchestrator
from .raw_http import connected, http2
from .scripted_task import ScriptedTask, Turn

STREAMS = 8
OF_THE_GATEWAY = ("gatewayd", "llorch")
EVENTS = b"GET /v2/tasks/t/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def post(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


MESSAGES = [{"role": "user", "content": "hi"}]
REQUESTS = {
    "events": EVENTS,
    "generate": post("/v2/generate", {"model": "m", "generate": {"prompt": "hi"}}),
    "chat": post("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "stream": True}),
    "chat whole": post("/v1/chat/completions", {"model": "m", "messages": MESSAGES}),
}


async def read(address: str, request: bytes, until: bytes) -> None:
    """Leaves once `until` has come; without it the stream is to end."""
    async with asyncio.timeout(10), connected(address) as (reader, writer):
        writer.write(request)
        seen = b""
        while not (until and until in seen) and (chunk := await reader.read(1 << 16)):
            seen += chunk
        assert until in seen
        assert seen.startswith(b"HTTP/1.1 ")


async def stays() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("orchestrator", [True, False], ids=["delivered", "called"], indirect=True)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_a_stream_that_was_read_to_its_end(
    start_gateway: StartGateway, orchestrator: FakeOrchestrator, request_: bytes
) -> None:
    ScriptedTask(orchestrator)
    gateway = await start_gateway()
    assert not await cycles_left_by(lambda: read(gateway.address, request_, b""), STREAMS, *OF_THE_GATEWAY)


@pytest.mark.parametrize("orchestrator", [True, False], ids=["delivered", "called"], indirect=True)
@pytest.mark.parametrize("request_", [REQUESTS["events"], REQUESTS["generate"], REQUESTS["chat"]])
async def test_a_stream_that_its_client_has_left(
    start_gateway: StartGateway, orchestrator: FakeOrchestrator, request_: bytes
) -> None:
    task = ScriptedTask(orchestrator)
    gateway = await start_gateway()

    async def leave() -> None:
        task.turns.append(Turn(stays, after=4))
        await read(gateway.address, request_, "grün".encode())

    assert not await cycles_left_by(leave, STREAMS, *OF_THE_GATEWAY)


async def test_streams_of_one_http2_connection(start_gateway: StartGateway, orchestrator: FakeOrchestrator) -> None:
    task = ScriptedTask(orchestrator)
    gateway = await start_gateway()

    async def read_one_and_leave_one() -> None:
        async with http2(gateway.address) as client:
            await client.read_until_ended(client.ask("/v2/tasks/t/events"))
            task.turns.append(Turn(stays, after=4))
            left = client.ask("/v2/tasks/t/events")
            async with asyncio.timeout(10):
                while "grün".encode() not in client.body.get(left, b""):
                    await client.read_some()

    assert not await cycles_left_by(read_one_and_leave_one, STREAMS, *OF_THE_GATEWAY)


@pytest.mark.parametrize("bytes_", [b"", b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n no frames"])
async def test_a_connection_without_a_request(start_gateway: StartGateway, bytes_: bytes) -> None:
    gateway = await start_gateway()

    async def leave() -> None:
        async with connected(gateway.address) as (_, writer):
            writer.write(bytes_)
            await asyncio.sleep(0.02)

    assert not await cycles_left_by(leave, STREAMS, *OF_THE_GATEWAY)
