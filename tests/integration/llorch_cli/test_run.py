import asyncio
import io
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import error_reason_pb2, task_event_pb2
from support.fake_orchestrator import TASK_ID, FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]


async def test_run_prints_the_answer_and_a_summary_on_stderr(llorch: Llorch) -> None:
    result = await llorch("run", "smollm2", "Name three colours.")

    assert (result.code, result.out) == (0, "Red, green, blue.\n")
    assert result.err == (
        "[smollm2 · llama_cpp 0.3.36 on garage/Ryzen · 3 tokens · 50.0 tokens/s · first token 20 ms · "
        "queued 0 ms · eos · cpu]\n"
    )


async def test_quiet_leaves_the_summary_out(llorch: Llorch) -> None:
    assert (await llorch("run", "-q", "smollm2", "Hi")).err == ""


async def test_options_reach_the_task(llorch: Llorch, fake: FakeOrchestrator) -> None:
    await llorch("run", "smollm2", "Hi", "--max-tokens", "5", "--temperature", "0", "--seed", "3", "--system", "Brief.")

    work = fake.tasks_seen[0].generate
    assert (work.max_tokens, work.sampling.temperature, work.sampling.seed) == (5, 0.0, 3)
    assert [message.role for message in work.chat.messages] == ["system", "user"]


async def test_a_dash_reads_the_prompt_from_stdin(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("From a file."))

    await llorch("run", "smollm2", "-")
    assert fake.tasks_seen[0].generate.chat.messages[0].content[0].text == "From a file."


async def test_stdin_that_is_no_text_is_refused(llorch: Llorch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))

    result = await llorch("run", "smollm2", "-")
    assert (result.code, result.err) == (2, "llorch: prompt: what comes from stdin is not text in UTF-8\n")


async def test_an_answer_goes_to_a_pipe_as_it_is(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.words = ("\x1b[2J", "gone\n")

    assert (await llorch("run", "smollm2", "Hi")).out == "\x1b[2Jgone\n"


async def test_an_answer_cannot_steer_a_terminal(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fake.words = ("\x1b[2J", "a\tb\n", "\x9b1mé")

    assert (await llorch("run", "smollm2", "Hi")).out == "[2Ja\tb\n1mé\n"


async def test_a_failed_task_is_one_line_and_exit_code_1(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.failure = task_event_pb2.Error(reason=error_reason_pb2.ERROR_REASON_WORKER_LOST, message="the worker is gone")

    result = await llorch("run", "smollm2", "Hi")
    assert (result.code, result.err) == (1, "llorch: the worker is gone\n")


async def test_ctrl_c_cancels_the_task_and_exits_130(address: str, fake: FakeOrchestrator) -> None:
    fake.hang_before_end = True
    command = (sys.executable, "-m", "llorch", "run", "smollm2", "Tell me a story.")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=PIPE, env={**os.environ, "LLORCH_ADDRESS": address}
    )
    assert process.stdout is not None
    assert await process.stdout.readexactly(3) == b"Red"

    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()

    assert (process.returncode, errors) == (130, b"")
    assert fake.cancelled == [TASK_ID]
