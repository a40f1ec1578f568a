import asyncio
import io
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import error_reason_pb2, task_event_pb2, task_pb2
from llorch.cli import away, run
from llorch.errors import LlorchError, Reason, Unavailable
from support.fake_orchestrator import TASK_ID, FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]


async def test_run_prints_the_answer_and_a_summary_on_stderr(llorch: Llorch) -> None:
    result = await llorch("run", "smollm2", "Name three colours.")

    assert (result.code, result.out) == (0, "Red, green, blue.\n")
    assert result.err == (
        "[smollm2 · llama_cpp 0.3.36 on garage/Ryzen · 3 tokens · 50.0 tokens/s · first token 20 ms · "
        "queued 0 ms · eos · cpu]\n"
    )


@pytest.mark.parametrize("reason", ["cancelled", "deadline"])
async def test_an_answer_that_was_cut_short_is_shown_and_is_a_failure(
    llorch: Llorch, fake: FakeOrchestrator, reason: str
) -> None:
    fake.finish_reason = task_event_pb2.FinishReason.Value(f"FINISH_REASON_{reason.upper()}")
    result = await llorch("run", "smollm2", "Hi", "--deadline", "5s")
    assert (result.code, result.out) == (1, "Red, green, blue.\n")
    assert f" · {reason} · cpu]" in result.err


async def test_an_answer_without_a_token_has_no_speed(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.words = ()
    assert "tokens/s" not in (await llorch("run", "smollm2", "Hi")).err


async def test_quiet_leaves_the_summary_out(llorch: Llorch) -> None:
    assert (await llorch("run", "-q", "smollm2", "Hi")).err == ""


async def test_options_reach_the_task(llorch: Llorch, fake: FakeOrchestrator) -> None:
    await llorch("run", "smollm2", "Hi", "--max-tokens", "5", "--temperature", "0", "--seed", "3", "--system", "Brief.")

    work = fake.tasks_seen[0].generate
    assert (work.max_tokens, work.sampling.temperature, work.sampling.seed) == (5, 0.0, 3)
    assert [message.role for message in work.chat.messages] == ["system", "user"]


async def test_every_option_reaches_its_place(llorch: Llorch, fake: FakeOrchestrator) -> None:
    sampling = {"top_k": 5, "top_p": 0.5, "min_p": 0.25, "repeat_penalty": 1.5}
    penalties = {"frequency_penalty": -0.5, "presence_penalty": 0.5}
    said = [f"--{name.replace('_', '-')}={value}" for name, value in {**sampling, **penalties}.items()]
    place = ("--deterministic", "--priority", "batch", "--deadline", "1.5s", "--session", "s", "--stop", "END")
    assert (await llorch("run", "smollm2", "Hi", *said, *place)).code == 0

    task = fake.tasks_seen[0]
    got = {field.name: value for field, value in task.generate.sampling.ListFields()}
    assert got == {**sampling, **penalties}
    assert (task.deterministic, task.priority, task.deadline_ms, task.session_id) == (True, "batch", 1500, "s")
    assert task.generate.stop == ["END"]


async def test_a_place_and_a_form_reach_the_task(llorch: Llorch, fake: FakeOrchestrator) -> None:
    places = ("--pin", "garage", "--pin", "attic/3090", "--prefer", "garage/0", "--avoid", "cellar")
    schema = '{"type": "object"}'
    assert (await llorch("run", "smollm2", "Hi", "--json-schema", schema, "--typical-p", "0.5", *places)).code == 0

    task = fake.tasks_seen[0]
    assert task.placement == task_pb2.PlacementOverrides(
        pin=["garage", "attic/3090"], prefer=["garage/0"], avoid=["cellar"]
    )
    assert task.generate.output_constraint.json_schema == schema
    assert task.generate.sampling.typical_p == 0.5


async def test_without_a_place_there_are_no_wishes(llorch: Llorch, fake: FakeOrchestrator) -> None:
    await llorch("run", "smollm2", "Hi")

    assert not fake.tasks_seen[0].HasField("placement")


@pytest.mark.parametrize(("flag", "kind"), [("--json-schema", "json_schema"), ("--grammar", "grammar")])
async def test_the_form_of_an_answer_is_read_from_a_file(
    llorch: Llorch, fake: FakeOrchestrator, tmp_path: Path, flag: str, kind: str
) -> None:
    file = tmp_path / "form"
    file.write_text(' root ::= "é"')
    assert (await llorch("run", "smollm2", "Hi", flag, str(file))).code == 0

    assert getattr(fake.tasks_seen[0].generate.output_constraint, kind) == ' root ::= "é"'


async def test_a_schema_and_a_grammar_together_are_wrong_usage(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch("run", "smollm2", "Hi", "--json-schema", "{}", "--grammar", "x.gbnf")
    assert (result.code, "--grammar: goes without --json-schema" in result.err) == (2, True)
    assert fake.tasks_seen == []


@pytest.mark.parametrize("flag", ["--json-schema", "--grammar"])
async def test_a_file_that_can_not_be_read_is_named(
    llorch: Llorch, fake: FakeOrchestrator, tmp_path: Path, flag: str
) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    for file, words in ((binary, "is not text in UTF-8"), (tmp_path / "none", "No such file")):
        result = await llorch("run", "smollm2", "Hi", flag, str(file))
        assert result.code == 2
        assert f"{flag}: {file} " in result.err
        assert words in result.err
    assert fake.tasks_seen == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--temperature", "101"), ("--top-k", "-1"), ("--max-tokens", "0"), ("--presence-penalty", "-3")],
)
async def test_what_is_out_of_range_is_refused_before_anything_is_asked(
    llorch: Llorch, fake: FakeOrchestrator, flag: str, value: str
) -> None:
    result = await llorch("run", "smollm2", "Hi", flag, value)

    assert result.code == 2
    assert flag in result.err
    assert fake.tasks_seen == []


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


def recovering(times: int) -> list[LlorchError | None]:
    return [Unavailable(Reason.RECOVERING, "it looks for its tasks", retry_after_ms=100) for _ in range(times)]


async def test_an_answer_goes_on_where_the_orchestrator_was_lost(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.stream_breaks_after = [0, 4]
    fake.refusals["StreamTask"] = recovering(3)
    result = await llorch("run", "smollm2", "Hi")
    assert (result.code, result.out) == (0, "Red, green, blue.\n")
    assert result.err.startswith("[smollm2 · "), "nothing is said of it"
    assert len(fake.asked_again) == 4


@pytest.mark.parametrize("terminal", [True, False])
async def test_what_happens_in_the_midst_of_an_answer_is_told_beside_it(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    fake.told_after_words = ["the worker that ran the task ended; going on elsewhere"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    result = await llorch("run", "smollm2", "Hi")
    assert result.err.splitlines()[0] == "llorch: the worker that ran the task ended; going on elsewhere"
    assert result.out == "Red, green, blue.\n"
    assert "going on" not in (await llorch("run", "smollm2", "Hi", "-q")).err


async def test_a_person_at_a_terminal_is_told_while_it_waits(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(away, "SAY_SO_AFTER_S", 0.05)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = "the orchestrator does not answer; waiting …\r\x1b[K"
    for terminal, out in ((False, "Red, green, blue.\n"), (True, "Red, green\n, blue.\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        for flags, said in (((), line), (("-q",), "")):
            fake.stream_breaks_after = [4]
            fake.refusals["StreamTask"] = recovering(3)
            result = await llorch("run", "smollm2", "Hi", *flags)
            assert result.out == (out if said else "Red, green, blue.\n")
            assert result.err.partition("[smollm2")[0] == said


async def test_an_answer_that_breaks_off_for_good_is_not_taken_for_a_whole_one(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_RECONNECT_FOR_S", 0.3)
    for flags in ((), ("-q",)):
        fake.stream_breaks_after = [4]
        fake.refusals["StreamTask"] = recovering(1000)
        result = await llorch("run", "smollm2", "Hi", *flags)
        assert (result.code != 0, result.out) == (True, "Red, green\n")
        told, error = result.err.splitlines()
        assert told == f"llorch: the answer breaks off here; its task was {TASK_ID}"
        assert "it looks for its tasks" in error


async def test_one_that_never_was_there_is_not_waited_for(llorch: Llorch) -> None:
    began = time.monotonic()
    result = await llorch("run", "smollm2", "Hi", "--address", "127.0.0.1:1")
    assert (result.code, time.monotonic() - began < 3) == (3, True)


_SIGNAL_ELSEWHERE = """
import signal, threading
from llorch.cli.main import main

threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
main()
"""
"""The system hands SIGINT to another thread, so that it interrupts no call of the main thread. The same happens where
it comes in the moment before the main thread begins to wait.
"""


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Processes hear SIGINT, though a shell that runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
async def test_ctrl_c_ends_it_while_it_waits_for_the_orchestrator(address: str, fake: FakeOrchestrator) -> None:
    fake.stream_breaks_after = [5]
    fake.refusals["StreamTask"] = recovering(1000)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llorch", "run", "smollm2", "Tell me a story."),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "LLORCH_ADDRESS": address},
    )
    try:
        async with asyncio.timeout(10):
            while len(fake.asked_again) < 3:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, out, errors) == (130, b"Red, green, blue.", b"")
    assert fake.cancelled == [TASK_ID]


@pytest.mark.parametrize("program", [("-m", "llorch"), ("-c", _SIGNAL_ELSEWHERE)])
@pytest.mark.usefixtures("hears_ctrl_c")
async def test_ctrl_c_cancels_the_task_and_exits_130(
    address: str, fake: FakeOrchestrator, program: tuple[str, str]
) -> None:
    fake.hang_before_end = True
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, "run", "smollm2", "Tell me a story."),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "LLORCH_ADDRESS": address},
    )
    assert process.stdout is not None
    assert await process.stdout.readexactly(len("Red, green, blue.")) == b"Red, green, blue."
    await asyncio.sleep(0.5)  # now its main thread has nothing to do but to wait

    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert (process.returncode, errors) == (130, b"")
    assert fake.cancelled == [TASK_ID]
