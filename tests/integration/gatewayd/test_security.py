"""Who gets in, over a real socket; and what the orchestrator is told about the client."""

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from gatewayd.exchange import Exchange
from gatewayd.http import limits
from gatewayd.http.stream import RequestHead
from gatewayd.security import ClientCheck, HostGuard, peer_of
from llama_orch.v2 import task_service_pb2
from llorch.errors import LlorchError, Reason

from .conftest import RunningGateway, StartGateway
from .fake_orchestrator import FakeOrchestrator

NO_STREAM: Any = None
TOKEN = "a-long-secret-of-the-house"
GUARD = HostGuard("0.0.0.0", ["gpu-box.lan"], ["https://chat.lan"])


def exchange(client: tuple[str, int], **headers: str) -> Exchange:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange(RequestHead("GET", "/", b"", named, client), NO_STREAM)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST",
        "127.0.0.1:1",
        "[::1]:8080",
        "192.168.1.5",
        "gpu-box.lan:80",
        "gpu-box.lan.",
    ],
)
def test_names_of_this_gateway_are_answered_to(host: str) -> None:
    GUARD.check({"host": host})


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("evil.example", Reason.NOT_PERMITTED),
        ("localhost.evil.example", Reason.NOT_PERMITTED),
        ("", Reason.MALFORMED_REQUEST),
        ("a@localhost", Reason.MALFORMED_REQUEST),
        ("localhost/x", Reason.MALFORMED_REQUEST),
        ("localhost, evil.example", Reason.NOT_PERMITTED),
        ("localhost:port", Reason.MALFORMED_REQUEST),
        ("[::1", Reason.MALFORMED_REQUEST),
    ],
)
def test_other_names_are_refused(host: str, reason: Reason) -> None:
    with pytest.raises(LlorchError) as caught:
        GUARD.check({"host": host})
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8080", True),
        ("https://localhost:8080", True),
        ("https://chat.lan", True),
        ("http://localhost:3000", False),
        ("http://6.6.6.6", False),
        ("null", False),
        ("", False),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, allowed: bool) -> None:
    headers = {"host": "localhost:8080", "origin": origin}
    if allowed:
        GUARD.check(headers)
    else:
        with pytest.raises(LlorchError, match="--allowed-origin"):
            GUARD.check(headers)


LOCAL, REMOTE = ("127.0.0.1", 5000), ("192.168.1.9", 5000)


@pytest.mark.parametrize(
    ("token", "client", "headers", "outcome"),
    [
        (None, LOCAL, {}, {"x-llorch-client": "loopback"}),
        (None, ("::1", 5), {}, {"x-llorch-client": "loopback"}),
        (
            None,
            LOCAL,
            {"authorization": "Bearer app-key"},
            {"x-llorch-client": "loopback", "authorization": "Bearer app-key"},
        ),
        (None, REMOTE, {}, Reason.TOKEN_MISSING),
        (None, LOCAL, {"x_forwarded_for": "1.2.3.4"}, Reason.TOKEN_MISSING),
        (None, LOCAL, {"forwarded": "for=1.2.3.4"}, Reason.TOKEN_MISSING),
        (TOKEN, LOCAL, {}, Reason.TOKEN_MISSING),
        (TOKEN, LOCAL, {"x_llorch_client": "loopback"}, Reason.TOKEN_MISSING),
        (TOKEN, LOCAL, {"authorization": "Bearer wrong"}, Reason.TOKEN_INVALID),
        (
            TOKEN,
            LOCAL,
            {"authorization": f"Bearer {TOKEN}", "via": "1.1 proxy", "x_llorch_client": "loopback"},
            {"x-llorch-client": "remote", "authorization": f"Bearer {TOKEN}"},
        ),
        (TOKEN, REMOTE, {}, Reason.TOKEN_MISSING),
        (TOKEN, REMOTE, {"authorization": "Basic dTpw"}, Reason.TOKEN_MISSING),
        (TOKEN, REMOTE, {"authorization": "Bearer wrong"}, Reason.TOKEN_INVALID),
        (TOKEN, REMOTE, {"authorization": "Bearer tok\ten"}, Reason.TOKEN_INVALID),
        (TOKEN, REMOTE, {"authorization": "Bearer é"}, Reason.TOKEN_INVALID),
        (
            TOKEN,
            REMOTE,
            {"authorization": f"bearer {TOKEN}"},
            {"x-llorch-client": "remote", "authorization": f"Bearer {TOKEN}"},
        ),
        *(
            (
                token,
                REMOTE,
                {"authorization": "Bearer llorch-of-some-app"},
                {"x-llorch-client": "remote", "authorization": "Bearer llorch-of-some-app"},
            )
            for token in (None, TOKEN)
        ),
    ],
)
def test_tokens(token: str | None, client: tuple[str, int], headers: dict[str, str], outcome: Any) -> None:
    check = ClientCheck(token)
    if isinstance(outcome, Reason):
        with pytest.raises(LlorchError) as caught:
            check.admit(exchange(client, **headers))
        assert caught.value.reason is outcome
    else:
        _, metadata = check.admit(exchange(client, **headers))
        assert dict(metadata) == outcome


@pytest.mark.parametrize(
    ("client", "headers", "outcome"),
    [
        (LOCAL, {}, {"x-llorch-client": "loopback"}),
        (LOCAL, {"x_llorch_client": "remote"}, {"x-llorch-client": "loopback"}),
        (LOCAL, {"authorization": "Bearer wrong"}, Reason.TOKEN_INVALID),
        (REMOTE, {}, Reason.TOKEN_MISSING),
        (REMOTE, {"x_llorch_client": "loopback"}, Reason.TOKEN_MISSING),
        (LOCAL, {"x_forwarded_proto": "https"}, Reason.TOKEN_MISSING),
        (LOCAL, {"x_real_ip": "127.0.0.1"}, Reason.TOKEN_MISSING),
        (LOCAL, {"via": "1.1 proxy"}, Reason.TOKEN_MISSING),
        (LOCAL, {"via": ""}, Reason.TOKEN_MISSING),
    ],
)
def test_tokens_where_auth_is_optional(client: tuple[str, int], headers: dict[str, str], outcome: Any) -> None:
    check = ClientCheck(TOKEN, optional=True)
    if isinstance(outcome, Reason):
        with pytest.raises(LlorchError) as caught:
            check.admit(exchange(client, **headers))
        assert caught.value.reason is outcome
    else:
        assert dict(check.admit(exchange(client, **headers))[1]) == outcome


def test_a_client_without_an_address_is_not_trusted() -> None:
    assert peer_of(None) == "unknown"


@pytest.mark.req("GATE-4004")
@pytest.mark.parametrize(
    ("headers", "status", "code", "legacy"),
    [
        ({"X-Forwarded-For": "1.2.3.4"}, 401, "TOKEN_MISSING", 40101),
        ({"Authorization": "Bearer wrong"}, 401, "TOKEN_INVALID", 40102),
        ({"Host": "evil.example"}, 403, "NOT_PERMITTED", 40301),
        ({"Origin": "https://evil.example"}, 403, "NOT_PERMITTED", 40301),
    ],
)
async def test_refusals_carry_their_codes_on_every_path(
    start_gateway: StartGateway, headers: dict[str, str], status: int, code: str, legacy: int
) -> None:
    gateway = await start_gateway(token=TOKEN)
    for method, path in (("GET", "/v2/state"), ("POST", "/v2/tasks"), ("GET", "/nothing"), ("GET", "//healthz")):
        answer = await gateway.client.request(method, path, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["legacy_code"]) == (status, code, legacy)
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert TOKEN not in answer.text


async def test_health_needs_a_right_name_but_no_token(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(token=TOKEN)
    forwarded = {"X-Forwarded-For": "1.2.3.4"}
    assert (await gateway.client.get("/healthz", headers=forwarded)).status_code == 200
    assert (await gateway.client.get("/healthz", headers={"Host": "evil.example"})).status_code == 403


async def test_a_client_that_shows_its_token_gets_in(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    orchestrator.answer("GetTask", task_service_pb2.GetTaskResponse())
    gateway = await start_gateway(token=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}", "x-llorch-client": "loopback"}
    answer = await gateway.client.get("/v2/tasks/t", headers=headers)
    assert answer.status_code == 200
    assert orchestrator.metadata["GetTask"]["authorization"] == f"Bearer {TOKEN}"


async def test_where_auth_is_optional_the_gateway_vouches_for_its_neighbours_with_its_own_token(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    orchestrator.answer("GetTask", task_service_pb2.GetTaskResponse())
    gateway = await start_gateway(token=TOKEN, auth_optional=True)
    assert (await gateway.client.get("/v2/tasks/t")).status_code == 200
    assert orchestrator.metadata["GetTask"]["authorization"] == f"Bearer {TOKEN}"
    assert orchestrator.metadata["GetTask"]["x-llorch-client"] == "loopback"


async def test_a_correlation_id_that_could_break_a_header_is_replaced(client: httpx.AsyncClient) -> None:
    for bad in ("a b", "x" * 129, "ü"):
        answer = await client.get("/healthz", headers=[(b"X-Correlation-Id", bad.encode())])
        assert answer.headers["x-correlation-id"].startswith("cor-")


async def test_too_many_requests_are_refused_until_some_ended(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> Any:
        entered.set()
        await release.wait()
        return task_service_pb2.GetTaskResponse()

    orchestrator.on("GetTask", wait)
    gateway = await start_gateway(max_requests=1)
    first = asyncio.create_task(gateway.client.get("/v2/tasks/t"))
    await entered.wait()
    assert (await gateway.client.get("/healthz")).status_code == 200
    refused = await gateway.client.get("/v2/tasks/t")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_CALLS")
    release.set()
    assert (await first).status_code == 200
    assert (await gateway.client.get("/v2/tasks/t")).status_code == 200


async def test_where_all_connections_are_used_a_further_one_is_closed(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    orchestrator.stream("StreamTask", then_wait=True)
    gateway = await start_gateway(max_connections=1)
    held = asyncio.create_task(gateway.client.get("/v2/tasks/t/events"))
    async with asyncio.timeout(5):
        while "StreamTask" not in orchestrator.requests:
            await asyncio.wait({held}, timeout=0.01)
        reader, writer = await asyncio.open_connection(*gateway.address.split(":"))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    held.cancel()
    await asyncio.wait({held})


async def test_a_connection_that_asks_for_nothing_leaves_for_a_new_one(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_connections=1)
    reader, writer = await asyncio.open_connection(*gateway.address.split(":"))
    assert (await gateway.client.get("/healthz")).status_code == 200
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /v2/state HTTP/1.1\r\n\r\n",
        b"GET /v2/state HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_malformed_http_is_refused_and_harms_no_other_client(gateway: RunningGateway, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection(*gateway.address.split(":"))
    writer.write(raw)
    async with asyncio.timeout(5):
        assert b" 4" in await reader.readline()
    writer.close()
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_a_request_that_trickles_in_is_given_up(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDLE_S", 0.3)
    monkeypatch.setattr(limits, "LOOK_EVERY_S", 0.05)
    gateway = await start_gateway()
    reader, writer = await asyncio.open_connection(*gateway.address.split(":"))
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(5):
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000:
            writer.write(bytes([byte]))
            await asyncio.wait({ended}, timeout=0.02)
            if ended.done():
                break
    assert ended.done()
    writer.close()


async def test_a_websocket_is_refused(gateway: RunningGateway) -> None:
    reader, writer = await asyncio.open_connection(*gateway.address.split(":"))
    writer.write(
        b"GET /v2/state HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with asyncio.timeout(5):
        assert b" 400 " in await reader.readline()
    writer.close()
