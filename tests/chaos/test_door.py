"""Clients without a token that would shut the gateway for all others: by connections, heads, frames and bodies."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from support import beside_each_other, chaos_count
from support.door_attacks import FLOODS, under_attack
from support.gateway_process import GatewayProcess
from support.orchestrator_process import OrchestratorProcess

TOKEN = "the-token-of-the-house-1"
SERVED_WITHIN_S = 0.2
PLACES_BACK_WITHIN_S = 35.0
PROBE_EVERY_S = 0.2
GROWS_AT_MOST_MIB = 20
REFUSED_WITHIN_S = 0.02
CONNECTIONS, HEADS, SENDERS = map(chaos_count.up_to, (2048, 200, 150))
"""The first is what the gateway takes: its `max_connections` too."""
_FIRST_PART = 64 * 1024
_HEAD = (
    b"POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer llorch-made-up\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)

pytestmark = pytest.mark.alone


@asynccontextmanager
async def running(folder: Path, token: str | None, **flags: object) -> AsyncIterator[GatewayProcess]:
    environment = {} if token is None else {"LLORCH_GATEWAY_TOKEN": token}
    orchestrator = OrchestratorProcess(folder / "orchestrator", token)
    gateway = GatewayProcess(folder / "gateway", orchestrator.address, environment=environment, flags=dict(flags))
    try:
        await orchestrator.start()
        await orchestrator.wait_serving()
        await gateway.start()
        await gateway.wait_serving()
        yield gateway
        gateway.check_runs()
    finally:
        await gateway.end()
        await orchestrator.end()


async def probe(address: str, token: str | None) -> float:
    """Seconds until a newcomer has its answer."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    try:
        shown = f"Authorization: Bearer {token}\r\n" if token else ""
        request = f"GET /v2/meta/capabilities HTTP/1.1\r\nHost: localhost\r\n{shown}Connection: close\r\n\r\n"
        writer.write(request.encode())
        async with asyncio.timeout(20):
            answer = await reader.read()
    finally:
        writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
    return time.perf_counter() - began


async def probed(address: str, token: str | None, waits: list[float], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        waits.append(await probe(address, token))
        await asyncio.sleep(PROBE_EVERY_S)


@pytest.mark.timeout(300)
async def test_no_client_keeps_a_newcomer_out(tmp_path: Path) -> None:
    """The houses are attacked one after the other, and hold out beside each other."""
    ways, turn = {"the house has a token": TOKEN, "the house has no token": None}, asyncio.Lock()
    await beside_each_other.run_all(tmp_path, {name: partial(attacked, token, turn) for name, token in ways.items()})


async def attacked(token: str | None, turn: asyncio.Lock, folder: Path) -> None:
    """All attacks at once, held until the gateway has ended each of their connections."""
    async with running(folder, token, max_connections=CONNECTIONS) as gateway, AsyncExitStack() as attacks:
        waits: list[float] = []
        probing = partial(probed, gateway.address, token, waits)
        attack = partial(under_attack, gateway.address)
        async with turn:
            held = [
                await attacks.enter_async_context(attack(name, connections))
                for name, connections in (("windows", 12), ("heads", HEADS), ("silence", CONNECTIONS))
            ]
            await probing(5)
            async with AsyncExitStack() as floods:
                flooding = [await floods.enter_async_context(attack(name, 2, again=True)) for name in FLOODS]
                await probing(6)
        await probing(PLACES_BACK_WITHIN_S - 9)
        assert [each.made for each in held] == [12, HEADS, CONNECTIONS]
        assert [each.still_open for each in held] == [0, 0, 0]
        assert all(flood.made > 2 for flood in flooding), "no flood was ended"
        assert max(waits) <= SERVED_WITHIN_S, sorted(waits)[-5:]


async def test_a_made_up_key_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    async with running(tmp_path, TOKEN) as gateway, AsyncExitStack() as stack:
        assert gateway.process is not None
        process = psutil.Process(gateway.process.pid)
        body = b'{"model":"m","generate":{"chat":{"messages":[' + b'{"role":"user"},' * 250_000 + b"{}]}}}"
        await _refused(gateway.address, b"{}", 2)
        before = process.memory_info().rss
        waits = [await _refused(gateway.address, body[:_FIRST_PART], len(body)) for _ in range(20)]
        for _ in range(SENDERS):
            await stack.enter_async_context(_sending(gateway.address, body[:-1], len(body)))
        assert process.memory_info().rss - before <= GROWS_AT_MOST_MIB * 2**20
        assert sorted(waits)[len(waits) // 2] <= REFUSED_WITHIN_S, waits


async def _refused(address: str, part: bytes, whole: int) -> float:
    """Seconds until the client is told so."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    try:
        writer.write(_HEAD % whole + part)
        async with asyncio.timeout(20):
            assert b" 401 " in await reader.readline()
    finally:
        writer.transport.abort()
    return time.perf_counter() - began


@asynccontextmanager
async def _sending(address: str, part: bytes, whole: int) -> AsyncIterator[None]:
    """A client that never sends the last byte of its body."""
    _, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    try:
        writer.write(_HEAD % whole + part)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(5):
                await writer.drain()
        yield
    finally:
        writer.transport.abort()
