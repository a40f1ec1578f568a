"""`llorch up` with a token, and the programs of the same user that find it by themselves."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from llorch import AsyncClient
from llorch.network_identity import network_id
from llorch.token_file import find_token
from support.up import Up, running_up

TOKEN = "a-long-secret-of-this-test"
CARD = "RTX 3090:24GiB"


@dataclass
class Guarded:
    up: Up
    grpc: str
    http: str
    env: dict[str, str]
    """Of a program of the same user, without any token."""

    @property
    def kept(self) -> Path:
        return Path(self.env["XDG_STATE_HOME"]) / "llama-orch" / "tokens"

    async def llorch(self, *arguments: str, **variables: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "llorch", *arguments]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.env | variables,
            timeout=60,
        )
        return done.returncode, " ".join(done.stdout.decode().split())


@asynccontextmanager
async def guarded_up(folder: Path, name: str, *arguments: str, **variables: str) -> AsyncIterator[Guarded]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LLORCH_", "AUTH_"))}
    env = {**plain, "XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
    arguments = ("--simulate-gpu", CARD, *arguments)
    async with running_up(folder / name, *arguments, env={**env, **variables}) as up:
        grpc = await up.ready()
        http = (await up.read_until(r"HTTP +(\S+)")).group(1)
        yield Guarded(up, grpc, http, env)


async def state_of(url: str, token: str | None) -> int:
    headers: Mapping[str, str] = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return (await client.get(f"{url}/v2/state", headers=headers)).status_code


def at(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process one of the same user, as far as the SDK can tell."""
    monkeypatch.delenv("LLORCH_API_TOKEN", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", variables["XDG_STATE_HOME"])


async def test_programs_of_the_same_user_find_the_token_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded_up(tmp_path, "one", LLORCH_API_TOKEN=TOKEN) as system:
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in system.kept.iterdir()}
        here = network_id()
        assert files == {f"{system.grpc}@{here}": 0o600, f"{system.http.removeprefix('http://')}@{here}": 0o600}
        assert TOKEN not in system.up.output

        code, said = await system.llorch("gpus", "--address", system.grpc)
        assert (code, "RTX 3090" in said) == (0, True)
        assert (await system.llorch("ps", "--address", system.grpc))[0] == 0
        found = await system.llorch("doctor", "--address", system.grpc, "--http", system.http.removeprefix("http://"))
        assert "answers at" in found[1]
        assert "asks for" not in found[1]

        code, said = await system.llorch("gpus", "--address", system.grpc, XDG_STATE_HOME=str(tmp_path / "other"))
        assert (code, "LLORCH_API_TOKEN" in said) == (1, True)
        code, said = await system.llorch("gpus", "--address", system.grpc, LLORCH_API_TOKEN="wrong")
        assert (code, "bearer token" in said) == (1, True)

        at(system.env, monkeypatch)
        async with AsyncClient(system.grpc) as client:
            assert (await client.state()).devices
        assert [await state_of(system.http, token) for token in (None, "wrong", TOKEN)] == [401, 401, 200]

        for process in system.up.family().values():
            assert TOKEN not in " ".join(process.cmdline())
        system.up.process.send_signal(signal.SIGINT)
        assert await system.up.end() == 0
        assert list(system.kept.iterdir()) == []


async def test_what_a_killed_system_leaves_is_shown_to_nothing(tmp_path: Path) -> None:
    async with guarded_up(tmp_path, "one", LLORCH_API_TOKEN=TOKEN) as system:
        system.up.process.kill()
        await system.up.process.wait()
        assert len(list(system.kept.iterdir())) == 2
        found = find_token(system.grpc, system.env)
        assert found is not None
        assert (found.token, "left over" in found.problem) == (None, True)


async def test_tokens_of_the_settings_file_are_known_as_well(tmp_path: Path) -> None:
    file = tmp_path / "llama-orch.toml"
    file.write_text(
        "".join(f'[{section}]\ntoken = "{TOKEN}"\n' for section in ("orchestrator", "pool_manager", "gateway"))
    )
    async with guarded_up(tmp_path, "one", "--config", str(file)) as system:
        assert (await system.llorch("gpus", "--address", system.grpc))[0] == 0
        assert [await state_of(system.http, token) for token in (None, TOKEN)] == [401, 200]


CURL = """#!/bin/sh
printf '%s\\n' "$@" > "$SEEN"
exec /usr/bin/env PATH="$REAL_PATH" curl --no-progress-meter --noproxy '*' "$@"
"""


async def test_the_command_that_is_printed_shows_the_token_to_the_gateway_and_on_no_command_line(
    tmp_path: Path,
) -> None:
    watched = tmp_path / "bin" / "curl"
    watched.parent.mkdir()
    watched.write_text(CURL)
    watched.chmod(0o755)
    async with guarded_up(tmp_path, "one", LLORCH_API_TOKEN=TOKEN) as system:
        lines = system.up.output.splitlines()
        begin = next(number for number, line in enumerate(lines) if "llorch gpus" in line) + 1
        command = "\n".join(lines[begin : lines.index("Ctrl-C ends everything.")])
        path = os.environ["PATH"]
        env = system.env | {"PATH": f"{watched.parent}:{path}", "REAL_PATH": path, "SEEN": str(tmp_path / "seen")}
        done = await asyncio.to_thread(
            subprocess.run, ["/bin/sh", "-c", command], check=False, capture_output=True, text=True, env=env, timeout=60
        )
    assert (done.returncode, "event: end" in done.stdout) == (0, True), done
    arguments = (tmp_path / "seen").read_text()
    assert "/v2/generate" in arguments
    assert TOKEN not in arguments
    assert TOKEN not in command


@pytest.mark.parametrize("way", ["option", "variable"])
async def test_an_empty_token_opens_no_door(tmp_path: Path, way: str) -> None:
    arguments, variables = (["--token", ""], {}) if way == "option" else ([], {"LLORCH_API_TOKEN": ""})
    async with running_up(tmp_path, "--simulate-gpu", CARD, *arguments, env=variables) as up:
        await up.read_until("--token: is empty" if way == "option" else "LLORCH_API_TOKEN: is empty")
        assert await up.end() == 2


@pytest.mark.parametrize("of_the_pool_manager", ["none", "another"])
async def test_a_pool_manager_without_the_orchestrators_token_is_told_at_once(
    tmp_path: Path, of_the_pool_manager: str
) -> None:
    file = tmp_path / "llama-orch.toml"
    other = '[pool_manager]\ntoken = "another-secret-of-this-test"\n' if of_the_pool_manager == "another" else ""
    file.write_text(f'[orchestrator]\ntoken = "{TOKEN}"\n{other}')
    async with running_up(tmp_path, "--simulate-gpu", CARD, "--config", str(file)) as up:
        await up.read_until("asks for its token")
        assert await up.end() != 0
    said = " ".join(up.output.split())
    assert f"the pool manager has {of_the_pool_manager}; give both the same one" in said
    assert "pool-managerd" not in said


async def test_a_token_of_an_example_is_refused_beyond_this_machine(tmp_path: Path) -> None:
    async with running_up(tmp_path, "--grpc", "0.0.0.0:0", env={"LLORCH_API_TOKEN": "change-me"}) as up:
        await up.read_until("is the one of an example")
        assert await up.end() == 2
        assert "openssl rand -hex 24" in " ".join(up.output.split())
