"""`make demo`, after its set-up."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"

# Two threads of llama.cpp on two cores wait for each other by spinning. Beside one busy process, that takes 150 s
# where it takes 5 when nothing else runs; this is only a guard against hanging.
pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]


async def test_the_demonstration_shows_two_answers_and_a_table() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, DEMO, "--cpu", stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()

    assert (process.returncode, err) == (0, b"")
    *_, http, grpc, _blank, _last = out.decode().splitlines()
    assert http.startswith("HTTP/SSE")
    assert grpc.startswith("gRPC")
    for row in (http, grpc):
        assert "llama_cpp" in row


async def test_ctrl_c_in_the_middle_leaves_nothing_behind() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, DEMO, "--cpu", stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    await process.stdout.readuntil(b"HTTP/SSE")

    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()

    assert (process.returncode, err) == (130, b"")
    assert b"nothing was left running" in out
