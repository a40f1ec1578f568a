"""Reverse proxies of Debian on loopback, each in its default form: it is told where to forward to, and nothing else.

nginx rewrites the name of the host and says nothing of whom it forwards for; haproxy says nothing either; caddy does.
"""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from llorch.ports import is_free
from support.free_ports import free_port

LISTENS_WITHIN_S = 20.0
ENDS_WITHIN_S = 5.0


@dataclass(frozen=True)
class Kind:
    """`forwards_openly`: whether the gateway can tell by a header that there is a proxy. `write` makes what it is told
    in a folder, to listen on a port for the gateway at an address, and returns the arguments.
    """

    name: str
    forwards_openly: bool
    write: Callable[[Path, int, str], list[str]]


@dataclass(frozen=True)
class Proxy:
    kind: Kind
    url: str


def need_proxies() -> None:
    """Skips the test where they are not installed; in continuous integration that is a failure."""
    if missing := [kind.name for kind in KINDS if _program(kind.name) is None]:
        told = f"{', '.join(missing)} not installed: sudo apt-get install --no-install-recommends nginx caddy haproxy"
        if os.environ.get("CI") == "true":
            pytest.fail(told, pytrace=False)
        pytest.skip(told)


@asynccontextmanager
async def proxies(folder: Path, gateway: str) -> AsyncIterator[list[Proxy]]:
    """One of each kind before the gateway at `host:port`. The test has asked for them with `need_proxies`."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_running(kind, folder / kind.name, gateway)) for kind in KINDS]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def _running(kind: Kind, folder: Path, gateway: str) -> AsyncIterator[Proxy]:
    program = _program(kind.name)
    assert program is not None
    port = free_port()
    arguments = kind.write(folder, port, gateway)
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)},
        )
    try:
        await _listens(kind, process, port, folder / "output")
        yield Proxy(kind, f"http://127.0.0.1:{port}")
    finally:
        await _end(process)


async def _listens(kind: Kind, process: Process, port: int, output: Path) -> None:
    async with asyncio.timeout(LISTENS_WITHIN_S):
        while is_free("127.0.0.1", port):
            assert process.returncode is None, f"{kind.name} ended:\n{output.read_text()}"  # noqa: ASYNC240  # a test
            await asyncio.sleep(0.02)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _write_nginx(folder: Path, port: int, gateway: str) -> list[str]:
    """As `/etc/nginx/nginx.conf` has it, with one site whose location only passes on."""
    temporary = "".join(
        f"    {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"""
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 768; }}
http {{
{temporary}
    access_log off;
    sendfile on;
    tcp_nopush on;
    gzip on;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://{gateway}; }}
    }}
}}
"""
    )
    return ["-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]


def _write_caddy(folder: Path, port: int, gateway: str) -> list[str]:
    folder.mkdir()
    (folder / "Caddyfile").write_text(
        f"""
{{
    admin off
    auto_https off
}}
:{port} {{
    bind 127.0.0.1
    reverse_proxy {gateway}
}}
"""
    )
    return ["run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _write_haproxy(folder: Path, port: int, gateway: str) -> list[str]:
    """With the times of `/etc/haproxy/haproxy.cfg`."""
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(
        f"""
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
frontend outside
    bind 127.0.0.1:{port}
    default_backend gateway
backend gateway
    server gateway {gateway}
"""
    )
    return ["-db", "-f", str(folder / "haproxy.cfg")]


KINDS = (
    Kind("nginx", forwards_openly=False, write=_write_nginx),
    Kind("caddy", forwards_openly=True, write=_write_caddy),
    Kind("haproxy", forwards_openly=False, write=_write_haproxy),
)
