"""Requests that few clients send: each gets the status that HTTP has for it, and the remedy, and logs little."""

import asyncio
import contextlib
import json

import pytest

from llama_orch.v2 import task_service_pb2

from .conftest import RunningGateway
from .fake_orchestrator import FakeOrchestrator
from .raw_http import answer_to, connected, read_answer

GET = b"GET /healthz HTTP/1.1\r\n"
POST = b"POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "says"),
    [
        (GET + b"Host: localhost\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", 200, "ok"),
        (b"GET /v2/state HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", 401, "set its token"),
        (POST + b"X-Forwarded-For: 1.2.3.4\r\nContent-Length: 2\r\n\r\n{}", 401, "set its token"),
        (GET + b"Host: [fe80::1%25eth0]:8080\r\n\r\n", 200, "ok"),
        (GET + b"Host: [fe80::1%eth0]\r\n\r\n", 200, "ok"),
        (GET + b"Host: [fe80::1%]\r\n\r\n", 400, "NAME:PORT"),
        (GET + b"\r\n", 400, "one Host"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 400, "NAME:PORT"),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "framed"),
        (POST + b"Content-Length: +2\r\n\r\n{}", 400, "framed"),
        (
            POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            400,
            "send one of them",
        ),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501, "chunked"),
        (POST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 2\r\n\r\n{}", 400, "send one"),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405, "no proxy"),
        (b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200, "ok"),
        (b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 403, "--allowed-host evil.example"),
        (b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "begins with /"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "begins with /"),
        (b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "HTTP/1.1"),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"x" * 160, 400, "http://"),
        (GET + b"Host: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, "headers"),
        (GET + b"Host: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431, "32 KiB"),
        (GET + b"Host: localhost\r\nX: a\0b\r\n\r\n", 400, "headers"),
    ],
)
async def test_an_odd_request_gets_the_right_status_and_the_remedy(
    gateway: RunningGateway, capsys: pytest.CaptureFixture[str], raw: bytes, status: int, says: str
) -> None:
    capsys.readouterr()
    found, body = await answer_to(gateway.address, raw)
    assert found == status
    assert says in body.decode()
    if status != 200:
        assert json.loads(body)["error"]["message"]
    assert len(capsys.readouterr().out.splitlines()) <= 1
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_a_content_length_that_is_said_twice_alike_counts_once(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.answer("SubmitTask", task_service_pb2.SubmitTaskResponse(task_id="t"))
    body = b'{"model":"m"}'
    for lengths in (b"Content-Length: 13\r\nContent-Length: 13\r\n", b"Content-Length: 13, 13\r\n"):
        status, _ = await answer_to(gateway.address, POST + lengths + b"\r\n" + body)
        assert status == 202


async def test_a_client_that_sends_nothing_more_gets_its_answer(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    """Also where that takes longer than the first look whether the client is still there."""
    release = asyncio.Event()

    async def late(_request: object, _context: object) -> task_service_pb2.GetTaskResponse:
        await asyncio.wait_for(release.wait(), 5)
        return task_service_pb2.GetTaskResponse()

    orchestrator.on("GetTask", late)
    asked = asyncio.create_task(
        answer_to(gateway.address, b"GET /v2/tasks/t HTTP/1.1\r\nHost: localhost\r\n\r\n", half_close=True)
    )
    await asyncio.wait({asked}, timeout=0.5)
    assert not asked.done()
    release.set()
    assert (await asked)[0] == 200


async def test_a_large_body_that_ends_with_the_connection_is_read_and_answered(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    """Its end is seen before all of it was read: that is done in slices."""
    orchestrator.answer("SubmitTask", task_service_pb2.SubmitTaskResponse(task_id="t"))
    body = b'{"model":"m","generate":{"prompt":"' + b"x" * 12_000 + b'"}}'
    for _ in range(5):
        status, _ = await answer_to(
            gateway.address, POST + b"Content-Length: %d\r\n\r\n" % len(body) + body, half_close=True
        )
        assert status == 202
    assert orchestrator.requests["SubmitTask"].task.generate.prompt == "x" * 12_000


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (POST + b"Content-Length: 20\r\n\r\n{}", "the body ended before its length"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}", "the body ended before its length"),
        (b"POST /v2/tasks HTTP/1.1\r\nHost: loc", "it ended within its head"),
    ],
)
async def test_a_request_that_ends_before_its_end_is_told_so(gateway: RunningGateway, raw: bytes, says: str) -> None:
    status, body = await answer_to(gateway.address, raw, half_close=True)
    assert (status, says in body.decode()) == (400, True)


async def test_a_client_that_waits_to_send_its_body_is_told_to_only_once_it_is_let_in(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.answer("SubmitTask", task_service_pb2.SubmitTaskResponse(task_id="t"))
    head = POST + b"Expect: 100-continue\r\nContent-Length: 13\r\n"
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(5):
        writer.write(head + b"\r\n")
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b'{"model":"m"}')
        assert (await read_answer(reader))[0] == 202
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(5):
        writer.write(head + b"Via: 1.1 proxy\r\n\r\n")
        assert b" 401 " in await reader.readuntil(b"\r\n\r\n")


async def test_requests_that_come_at_once_are_answered_in_order(gateway: RunningGateway) -> None:
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(5):
        writer.write((GET + b"Host: localhost\r\n\r\n") * 3 + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [(await read_answer(reader))[0] for _ in range(4)] == [200, 200, 200, 404]


async def test_head_has_the_headers_of_the_answer_and_no_body(gateway: RunningGateway) -> None:
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(5):
        writer.write(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"content-length: 15" in head
    assert rest == b""


async def test_a_refusal_of_head_has_no_body_either(gateway: RunningGateway) -> None:
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(5):
        writer.write(b"HEAD healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    assert (b" 400 " in head, rest) == (True, b"")


async def test_a_refused_body_is_not_waited_for_and_the_refusal_arrives(gateway: RunningGateway) -> None:
    """The client still sends while it is refused; a reset would make its kernel throw the refusal away."""
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(5):
        writer.write(POST + b"Via: 1.1 proxy\r\nContent-Length: 4000000\r\n\r\n")
        writer.write(b"x" * 1_000_000)
        status, _ = await read_answer(reader)
        writer.write(b"x" * 1_000_000)
        assert await reader.read() == b""
    assert status == 401


async def test_a_body_in_chunks_of_one_byte_ends_its_connection_and_no_other(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.answer("SubmitTask", task_service_pb2.SubmitTaskResponse(task_id="t"))
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(10):
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 100_000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_what_comes_behind_a_request_that_is_being_answered_is_bounded(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamTask", then_wait=True)
    async with connected(gateway.address) as (reader, writer), asyncio.timeout(10):
        writer.write(b"GET /v2/tasks/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while "StreamTask" not in orchestrator.requests:
            await asyncio.sleep(0.01)
        writer.write((GET + b"Host: localhost\r\n\r\n") * 10_000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await orchestrator.ended.wait()
