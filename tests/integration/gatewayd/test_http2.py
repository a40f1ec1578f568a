"""HTTP/2, in the clear and over TLS: many requests on one connection, and clients that take, or ask for, nothing."""

import asyncio
import contextlib
import ssl
from typing import Any

import httpx
import pytest
import trustme
from h2.errors import ErrorCodes

from gatewayd.exchange import Exchange
from gatewayd.http import limits
from gatewayd.http.stream import RequestHead, Stream
from llama_orch.v2 import task_pb2, task_service_pb2

from .conftest import RunningGateway
from .fake_orchestrator import FakeOrchestrator
from .http_server import http_server
from .raw_http import RawHttp2, connected, http2, read_answer

EVENTS = "/v2/tasks/t/events"


def _large_answer(orchestrator: FakeOrchestrator, size: int) -> None:
    task = task_pb2.Task(task_id="x" * size)
    orchestrator.answer("GetTask", task_service_pb2.GetTaskResponse(task=task))


async def test_requests_of_one_connection_are_answered_each_for_itself(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamTask", then_wait=True)
    async with http2(gateway.address) as client:
        held = client.ask(EVENTS)
        ok, missing, foreign = client.ask("/healthz"), client.ask("/nothing"), client.ask("/v2/nodes", method="BREW")
        await client.read_until_ended(ok, missing, foreign)
    assert [client.status[each] for each in (ok, missing, foreign)] == [200, 404, 405]
    assert bytes(client.body[ok]) == b'{"status":"ok"}'
    assert held not in client.ended


@pytest.mark.parametrize("window", [1, 1000, 65_535])
async def test_an_answer_larger_than_all_windows_arrives_whole(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, window: int
) -> None:
    size = 300 if window == 1 else 300_000
    _large_answer(orchestrator, size)
    async with http2(gateway.address, window=window) as client:
        asked = [client.ask("/v2/tasks/t") for _ in range(3)]
        await client.read_until_ended(*asked)
    assert [client.body[each].count(b"x") for each in asked] == [size] * 3


async def test_a_body_is_read_as_far_as_it_is_wanted(orchestrator: FakeOrchestrator, gateway: RunningGateway) -> None:
    orchestrator.answer("SubmitTask", task_service_pb2.SubmitTaskResponse(task_id="t"))
    async with http2(gateway.address) as client:
        body = b'{"model":"m","generate":{"prompt":"' + b"x" * 40_000 + b'"}}'
        json = (("content-type", "application/json"),)
        taken = [client.ask("/v2/tasks", method="POST", body=body, headers=json)]
        await client.read_until_ended(*taken)
        for _ in range(5):
            taken.append(client.ask("/v2/tasks", method="POST", body=body, headers=json))
            await client.read_until_ended(*taken)
        refused = client.ask("/v2/tasks", method="POST", body=body, headers=(*json, ("via", "1.1 proxy")))
        await client.read_until_ended(refused)
    assert [client.status[each] for each in taken] == [202] * 6
    assert client.status[refused] == 401


async def test_a_client_that_resets_its_stream_ends_the_work_for_it(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamTask", then_wait=True)
    async with http2(gateway.address) as client:
        held = client.ask(EVENTS)
        async with asyncio.timeout(5):
            while "StreamTask" not in orchestrator.requests:
                await asyncio.sleep(0.01)
            client.machine.reset_stream(held, ErrorCodes.CANCEL)
            client.flush()
            await orchestrator.ended.wait()
        ok = client.ask("/healthz")
        await client.read_until_ended(ok)
    assert client.status[ok] == 200


async def test_a_stream_whose_client_takes_nothing_ends_and_its_connection_does_not(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STALLED_S", 0.3)
    _large_answer(orchestrator, 300_000)
    async with http2(gateway.address, window=0) as client:
        client.takes = False
        blocked = client.ask("/v2/tasks/t")
        await client.read_until_ended(blocked)
        assert client.reset[blocked] == ErrorCodes.CANCEL
        client.machine.update_settings({4: 65_535})
        client.flush()
        ok = client.ask("/healthz")
        await client.read_until_ended(ok)
    assert client.status[ok] == 200


@pytest.mark.parametrize("kind", ["ping", "settings", "reset", "empty data", "priority", "unknown", "window"])
async def test_a_flood_of_frames_that_ask_for_nothing_ends_its_own_connection(
    gateway: RunningGateway, kind: str
) -> None:
    def frame(type_: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3) + bytes([type_, flags]) + stream.to_bytes(4) + payload

    async with http2(gateway.address) as client:
        first = client.ask("/v2/tasks", method="POST", body=None) if kind == "empty data" else client.ask("/healthz")
        await client.read_until_ended(first)
        floods = {
            "ping": frame(6, 0, 0, b"12345678"),
            "settings": frame(4, 0, 0, b""),
            "empty data": frame(0, 0, 3, b""),
            "priority": frame(2, 0, 5, bytes(5)),
            "unknown": frame(99, 0, 0, b""),
            "window": frame(8, 0, 0, (1).to_bytes(4)),
        }
        sent = 0
        async with asyncio.timeout(10):
            while not client.is_closed:
                if kind == "reset":
                    for _ in range(50):
                        client.machine.reset_stream(client.ask("/healthz"), ErrorCodes.CANCEL)
                    client.flush()
                else:
                    client._writer.write(floods[kind] * 100)
                sent += 100
                assert sent < 20_000
                await _read_a_moment(client)
    assert (await gateway.client.get("/healthz")).status_code == 200


async def _read_a_moment(client: Any) -> None:
    """Reads without a timeout that cuts a read in two."""
    reading = asyncio.ensure_future(client.read_some())
    await asyncio.wait({reading}, timeout=0.02)
    if not reading.done():
        reading.cancel()
        await asyncio.wait({reading})
    elif reading.exception() is not None:
        client.is_closed = True


@pytest.mark.parametrize("http2_only", [True, False])
async def test_over_tls_both_versions_are_spoken(tmp_path: Any, http2_only: bool) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.set_alpn_protocols(["h2", "http/1.1"])
    certificate.configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2"] if http2_only else ["http/1.1"])

    async def answer(head: RequestHead, stream: Stream) -> None:
        exchange = Exchange(head, stream)
        exchange.answer(200, "text/plain", await exchange.read_body(10**6, 5))

    async with http_server(answer, tls=served) as (_, address):
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting)
        if http2_only:
            client = RawHttp2(reader, writer)
            asked = client.ask("/", method="POST", body=b"x" * 50_000)
            await client.read_until_ended(asked)
            assert bytes(client.body[asked]) == b"x" * 50_000
        else:
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000)
            assert await read_answer(reader) == (200, b"x" * 50_000)
        writer.transport.abort()


async def test_a_tls_handshake_that_never_ends_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_S", 0.2)
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(served)

    async def answer(_head: RequestHead, _stream: Stream) -> None:
        raise AssertionError

    async with http_server(answer, tls=served) as (server, address):
        async with connected(address) as (reader, _), asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert len(server._places) == 0


async def test_a_gateway_that_shuts_down_answers_what_runs_and_takes_nothing_new(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def late(_request: Any, _context: Any) -> Any:
        entered.set()
        await release.wait()
        return task_service_pb2.GetTaskResponse()

    orchestrator.on("GetTask", late)
    async with http2(gateway.address) as client, asyncio.timeout(10):
        asked = client.ask("/v2/tasks/t")
        await entered.wait()
        gateway.stop.set()
        release.set()
        await client.read_until_ended(asked)
        assert client.status[asked] == 200
        await gateway.task
    with pytest.raises(httpx.TransportError):
        await gateway.client.get("/healthz")
