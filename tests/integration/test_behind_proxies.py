"""Who gets in through a reverse proxy on this machine, with a token or without one, and that streams pass it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.proxies import Proxy, need_proxies, proxies
from support.whole_system import SILENT_S, WholeSystem, whole_system

TOKEN = "a-long-secret-of-the-house"
OUTSIDE = "llm.example"
"""The name by which clients elsewhere reach the proxy; caddy and haproxy hand it on."""

SHOWN = {"none": {}, "right": {"authorization": f"Bearer {TOKEN}"}, "wrong": {"authorization": "Bearer wrong"}}
CLAIMS: tuple[dict[str, str], ...] = ({}, {"x-llorch-client": "loopback"})
WAYS_IN: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v2/state", None),
    ("GET", "/v1/models", None),
    ("GET", "/v2/meta/metrics", None),
    ("POST", "/v2/generate", {"model": "sim", "generate": {"prompt": "x", "max_tokens": 2}}),
    ("POST", "/v1/completions", {"model": "sim", "prompt": "x", "max_tokens": 2}),
    ("POST", "/v2/apps", {"app": "NAME"}),
)
MATRIX = list(product([False, True], [False, True]))


@pytest.fixture(autouse=True)
def _proxies_are_installed() -> None:
    need_proxies()


@asynccontextmanager
async def system_behind_proxies(
    folder: Path, *, token: bool, optional: bool = False, tokens_per_s: int = 400
) -> AsyncIterator[tuple[WholeSystem, list[Proxy]]]:
    shown, sim = TOKEN if token else None, json.dumps({"decode_tokens_per_s": tokens_per_s})
    async with (
        whole_system(folder, token=shown, auth_optional=optional, allowed_host=[OUTSIDE], sim=sim) as system,
        proxies(folder, system.http.base_url.netloc.decode()) as running,
    ):
        yield system, running


@asynccontextmanager
async def client_of(proxy: Proxy, shown: str = "none") -> AsyncIterator[httpx.AsyncClient]:
    """One on another machine, as far as the gateway can tell."""
    headers = {"host": OUTSIDE, **SHOWN[shown]}
    async with httpx.AsyncClient(base_url=proxy.url, headers=headers, timeout=SILENT_S, trust_env=False) as client:
        yield client


def expected(proxy: Proxy, *, token: bool, optional: bool, shown: str) -> int | None:
    """What docs/http.md and SECURITY.md say; None for success."""
    seems_local = not proxy.kind.forwards_openly
    if not token:
        return None if seems_local else 401
    if shown == "none":
        return None if seems_local and optional else 401
    return None if shown == "right" else 401


@pytest.mark.req("GATE-4004")
@pytest.mark.parametrize(("token", "optional"), MATRIX)
async def test_who_gets_in(tmp_path: Path, token: bool, optional: bool) -> None:
    found: dict[object, int | None] = {}
    wanted: dict[object, int | None] = {}
    async with system_behind_proxies(tmp_path, token=token, optional=optional) as (_, running):
        for proxy, shown, claim in product(running, SHOWN, CLAIMS):
            async with client_of(proxy, shown) as client:
                for number, (method, path, body) in enumerate(WAYS_IN):
                    name = f"app-{len(found)}-{number}"
                    sent = json.loads(json.dumps(body).replace("NAME", name))
                    answer = await client.request(method, path, json=sent, headers=claim)
                    case = (proxy.kind.name, shown, bool(claim), path)
                    found[case] = None if answer.is_success else answer.status_code
                    wanted[case] = expected(proxy, token=token, optional=optional, shown=shown)
    assert found == wanted
    assert len(found) == 3 * len(SHOWN) * len(CLAIMS) * len(WAYS_IN)


@pytest.mark.req("GATE-4004")
async def test_no_key_of_an_app_is_made_from_outside_without_the_token(tmp_path: Path) -> None:
    body = {"app": "burglar"}
    async with system_behind_proxies(tmp_path, token=True) as (system, running):
        for proxy in running:
            async with client_of(proxy) as client:
                for headers in ({}, {"x-llorch-client": "loopback"}, {"x-forwarded-for": "127.0.0.1"}):
                    refused = await client.post("/v2/apps", json=body, headers=headers)
                    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "TOKEN_MISSING")
        assert (await system.http.get("/v2/apps")).json().get("apps", []) == []


async def test_the_key_of_an_app_is_good_through_every_proxy(tmp_path: Path) -> None:
    async with system_behind_proxies(tmp_path, token=True) as (system, running):
        key = (await system.http.post("/v2/apps", json={"app": "aider"})).json()["key"]
        as_aider = {"authorization": f"Bearer {key}"}
        for proxy in running:
            async with client_of(proxy) as client:
                assert (await client.get("/v1/models", headers=as_aider)).status_code == 200
                assert (await client.post("/v2/apps", json={}, headers=as_aider)).status_code == 403


async def test_health_is_open_through_every_proxy(tmp_path: Path) -> None:
    async with system_behind_proxies(tmp_path, token=True) as (_, running):
        for proxy in running:
            async with client_of(proxy) as client:
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/readyz")).status_code == 200


async def test_events_pass_every_proxy_as_they_come(tmp_path: Path) -> None:
    async with system_behind_proxies(tmp_path, token=True, tokens_per_s=20) as (system, running):
        for proxy in running:
            async with client_of(proxy, "right") as client:
                await _stream_and_cancel(system.http, client)


async def _stream_and_cancel(direct: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    """The task is long: its first event comes while it runs only if nothing on the way waits for its end."""
    work = {"model": "sim", "generate": {"prompt": "x", "max_tokens": 2000}}
    task_id = (await client.post("/v2/tasks", json=work)).json()["task_id"]
    kinds, cursor = [], ""
    async with client.stream("GET", f"/v2/tasks/{task_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                cursor = line.removeprefix("id: ")
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
                if kinds.count("token") == 1 and kinds[-1] == "token":
                    assert (await direct.get(f"/v2/tasks/{task_id}")).json()["task"]["state"] == "TASK_STATE_RUNNING"
                    assert (await direct.post(f"/v2/tasks/{task_id}/cancel", json={})).status_code == 200
    assert kinds[0] == "started"
    assert kinds[-1] in ("end", "error")
    again = await client.get(f"/v2/tasks/{task_id}/events", headers={"last-event-id": cursor})
    assert again.status_code == 200
