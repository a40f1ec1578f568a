"""Processes that read vocabularies: few, owned, and whatever they do, the pool manager goes on."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import tokens_pb2
from llorch.engines import EngineName
from llorch.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    LlorchError,
    NotFound,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from pool_managerd.vocabularies import process, vocabularies
from pool_managerd.vocabularies.process import VOCABULARY_PROGRAM, vocabulary_environment
from pool_managerd.vocabularies.vocabularies import AT_ONCE, MOST_OPEN, Vocabularies
from support.gguf_writer import smallest_model
from support.manual_clock import ManualClock
from support.worker_host import eventually
from worker_orcd import read_vocabulary

# Does what it is asked to; its answers begin with its process id. `echo` waits for the file to be there.
PLAYED = """
import json, os, signal, socket, struct, sys, time
HEAD = struct.Struct("<BI")
line = socket.socket(fileno=0)
def exactly(size):
    found = b""
    while len(found) < size:
        part = line.recv(size - len(found))
        if not part:
            os._exit(0)
        found += part
    return found
while True:
    kind, length = HEAD.unpack(exactly(HEAD.size))
    asked = json.loads(exactly(length))
    if "wait_for" in asked:
        while not os.path.exists(asked["wait_for"]):
            time.sleep(0.002)
    if "signal" in asked:
        os.kill(os.getpid(), asked["signal"])
        time.sleep(60)
    if "exit" in asked:
        os._exit(asked["exit"])
    if "head" in asked:
        line.sendall(HEAD.pack(*asked["head"]) + b"x" * 8)
        time.sleep(60)
    said = json.dumps([os.getpid(), asked.get("say"), sorted(os.environ), sys.argv[1:]]).encode()
    line.sendall(HEAD.pack(1, len(said)) + said)
"""


class Played:
    """Vocabularies whose processes play their part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        script = folder / "played.py"
        script.write_text(PLAYED)
        self.opened = Vocabularies(self.clock, (sys.executable, "-I", "-S", str(script)))

    def file(self, name: str = "a.gguf") -> Path:
        path = self.folder / name
        if not path.exists():
            path.write_bytes(b"GGUF")
        return path

    async def ask(self, name: str = "a.gguf", **asked: object) -> list[object]:
        """Its process id, what it was to say, the names in its environment, and its arguments."""
        said: list[object] = json.loads(await self.opened.ask("sim", self.file(name), json.dumps(asked).encode()))
        return said


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    made = Played(tmp_path)
    yield made
    await made.opened.close()
    assert made.opened.pids == set()


async def test_a_process_is_kept_for_further_questions_about_its_file(played: Played) -> None:
    first = await played.ask(say="one")
    again = await played.ask(say="two")
    other = await played.ask("b.gguf", say="three")
    assert [said[1] for said in (first, again, other)] == ["one", "two", "three"]
    assert first[0] == again[0] != other[0]
    assert first[3] == ["sim", str(played.file())]


async def test_it_gets_no_secrets(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLORCH_POOL_MANAGER_TOKEN", "s3cret")
    names = set(vocabulary_environment({"PATH": "/bin", "LLORCH_POOL_MANAGER_TOKEN": "s3cret"}))
    assert names == {"PATH", "CUDA_VISIBLE_DEVICES"}
    said = await played.ask()
    assert "LLORCH_POOL_MANAGER_TOKEN" not in str(said[2])


async def test_a_file_that_was_changed_is_opened_anew(played: Played) -> None:
    first = await played.ask()
    played.file().write_bytes(b"GGUF of another kind")
    assert (await played.ask())[0] != first[0]


async def test_of_more_files_than_may_be_open_the_one_not_used_for_longest_is_closed(played: Played) -> None:
    pids = []
    for number in range(MOST_OPEN):
        played.clock.advance(1)
        pids.append((await played.ask(f"{number}.gguf"))[0])
    played.clock.advance(1)
    assert (await played.ask("0.gguf"))[0] == pids[0]
    await played.ask("one more.gguf")
    assert len(played.opened.pids) == MOST_OPEN
    assert pids[0] in played.opened.pids
    assert pids[1] not in played.opened.pids


async def test_what_is_not_used_for_long_is_closed_and_what_answers_is_not(played: Played) -> None:
    unused = (await played.ask("unused.gguf"))[0]
    go = played.folder / "go"
    answering = asyncio.ensure_future(played.ask("answering.gguf", wait_for=str(go)))
    await eventually(lambda: len(played.opened.pids) == 2)
    played.clock.advance(vocabularies.KEPT_S)
    await played.opened.close_unused(vocabularies.KEPT_S)
    assert unused not in played.opened.pids
    go.touch()
    assert (await answering)[0] in played.opened.pids


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"signal": 11}, "SIGSEGV"),
        ({"signal": 6}, "SIGABRT"),
        ({"exit": 3}, "code 3"),
        ({"head": [1, 2**32 - 1]}, "nothing that can be read"),
        ({"head": [9, 8]}, "nothing that can be read"),
        ({"head": [3, 8]}, "nothing that can be read"),
    ],
)
async def test_a_process_that_fails_is_told_and_the_next_question_gets_another(
    played: Played, asked: dict[str, Any], named: str
) -> None:
    first = await played.ask()
    with pytest.raises(Unavailable, match=named) as failed:
        await played.ask(**asked)
    assert failed.value.reason is Reason.ENGINE_FAILED
    assert first[0] not in played.opened.pids
    assert (await played.ask(say="fine"))[1] == "fine"


async def test_one_that_died_between_two_questions_is_replaced(played: Played) -> None:
    pid = (await played.ask())[0]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    await eventually(
        lambda: played.opened._kept != {} and all(one.process.ended for one in played.opened._kept.values())
    )
    said = await played.ask(say="by another")
    assert said[0] != pid
    assert said[1] == "by another"


async def test_one_that_its_own_alarm_ends_took_too_long(played: Played) -> None:
    with pytest.raises(DeadlineExceeded) as failed:
        await played.ask(signal=14)
    assert failed.value.reason is Reason.DEADLINE_PASSED


async def test_one_that_does_not_even_end_itself_is_ended(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await played.ask()
    monkeypatch.setattr(process, "ANSWER_WITHIN_S", 0.05)
    with pytest.raises(DeadlineExceeded):
        await played.ask(wait_for=str(played.folder / "never"))
    assert first[0] not in played.opened.pids


async def test_the_answer_to_a_caller_that_left_is_not_given_to_the_next(played: Played) -> None:
    """Nor is what it had opened given up."""
    go = played.folder / "go"
    leaving = asyncio.ensure_future(played.ask(say="for the one that left", wait_for=str(go)))
    await eventually(lambda: bool(played.opened.pids))
    (pid,) = played.opened.pids
    leaving.cancel()
    await asyncio.wait({leaving})
    following = asyncio.ensure_future(played.ask(say="for the next"))
    await asyncio.wait({following}, timeout=0.02)
    assert not following.done()
    go.touch()
    assert (await following)[:2] == [pid, "for the next"]


async def test_what_is_being_answered_ends_with_the_rest(played: Played) -> None:
    """Its caller is told, and no process is left."""
    waiting = asyncio.ensure_future(played.ask(wait_for=str(played.folder / "never")))
    await eventually(lambda: bool(played.opened.pids))
    await played.opened.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert played.opened.pids == set()


async def test_few_are_asked_at_once_and_others_are_refused_after_a_while(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = played.folder / "go"
    busy = [asyncio.ensure_future(played.ask(f"{n}.gguf", wait_for=str(go))) for n in range(AT_ONCE)]
    await eventually(lambda: len(played.opened.pids) == AT_ONCE)
    monkeypatch.setattr(vocabularies, "TURN_WITHIN_S", 0.02)
    for name in ("another.gguf", "0.gguf"):
        with pytest.raises(ResourceExhausted) as refused:
            await played.ask(name)
        assert (refused.value.reason, refused.value.retry_after_ms) == (Reason.TOO_MANY_CALLS, 1000)
    assert len(played.opened.pids) == AT_ONCE
    go.touch()
    await asyncio.gather(*busy)
    assert (await played.ask("another.gguf", say="now"))[1] == "now"


async def test_questions_about_one_file_do_not_take_the_turns_of_others(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = played.folder / "go"
    slow = [asyncio.ensure_future(played.ask("slow.gguf", wait_for=str(go))) for _ in range(5)]
    await eventually(lambda: len(played.opened.pids) == 1)
    assert (await played.ask("quick.gguf", say="quick"))[1] == "quick"
    go.touch()
    assert len({said[0] for said in await asyncio.gather(*slow)}) == 1, "one process for all"


async def test_a_file_that_is_gone_is_not_asked(played: Played) -> None:
    with pytest.raises(NotFound) as refused:
        await played.opened.ask("sim", played.folder / "none.gguf", b"{}")
    assert refused.value.reason is Reason.MODEL_FILE_MISSING


async def test_a_program_that_can_not_be_started_is_told(tmp_path: Path) -> None:
    opened = Vocabularies(ManualClock(), (str(tmp_path / "none"),))
    with pytest.raises(Unavailable, match="can't start"):
        await opened.ask("sim", Path(sys.executable), b"")
    assert opened.pids == set()


def question(text: str = "abcdef", **options: bool) -> bytes:
    return tokens_pb2.TokenQuestion(text=tokens_pb2.TextToTokenize(text=text, **options)).SerializeToString()


async def test_the_real_program_answers_refuses_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    opened = Vocabularies(ManualClock())
    try:
        answered = tokens_pb2.TokenAnswer.FromString(await opened.ask(EngineName.sim, path, question(with_pieces=True)))
        assert list(answered.pieces) == [b"abcd", b"ef"]
        (pid,) = opened.pids
        for wrong in (b"", question("")):
            with pytest.raises(InvalidArgument):
                await opened.ask(EngineName.sim, path, wrong)
        with pytest.raises(LlorchError) as failed:
            await opened.ask(EngineName.sim, path, b"\xff")
        assert failed.value.reason is Reason.ENGINE_FAILED
        assert pid not in opened.pids
    finally:
        await opened.close()


@pytest.mark.native
async def test_a_file_that_is_no_model_ends_the_process_with_its_name(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    path = tmp_path / "none.gguf"
    path.write_bytes(b"<html>")
    opened = Vocabularies(ManualClock())
    with pytest.raises(FailedPrecondition, match=r"none\.gguf") as failed:
        await opened.ask(EngineName.llama_cpp, path, question())
    assert failed.value.reason is Reason.MODEL_FILE_INVALID
    assert opened.pids == set()


async def test_a_node_without_the_engine_says_so(tmp_path: Path) -> None:
    """As where llama-cpp-python can't be imported."""
    path = tmp_path / "a.gguf"
    path.write_bytes(smallest_model())
    hidden = "import sys; sys.modules['llama_cpp'] = None; from worker_orcd.read_vocabulary import main; main()"
    opened = Vocabularies(ManualClock(), (sys.executable, "-P", "-c", hidden))
    with pytest.raises(FailedPrecondition, match=r"llama-cpp-python can't be imported.*install it") as failed:
        await opened.ask(EngineName.llama_cpp, path, question())
    assert failed.value.reason is Reason.MODEL_LOAD_FAILED


PRELUDE = """
import ctypes, signal
from worker_orcd import read_vocabulary
alarm = signal.alarm
signal.alarm = lambda seconds: signal.setitimer(signal.ITIMER_REAL, 0.3 if seconds else 0)
class Entry:
    def open_vocabulary(self, path):
        return {opens}
read_vocabulary.REGISTRY = {{name: lambda: Entry() for name in read_vocabulary.EngineName}}
read_vocabulary.main()
"""
"""The real program with an alarm that is short, and an engine that does something when it opens a vocabulary."""


def that_opens(what: str) -> tuple[str, ...]:
    return sys.executable, "-P", "-c", PRELUDE.format(opens=what)


async def test_it_is_ended_in_the_midst_of_native_code_where_it_takes_too_long(tmp_path: Path) -> None:
    assert read_vocabulary.ANSWER_WITHIN_S < process.ANSWER_WITHIN_S
    opened = Vocabularies(ManualClock(), that_opens("ctypes.PyDLL(None).sleep(60)"))
    with pytest.raises(DeadlineExceeded):
        await opened.ask(EngineName.sim, tmp_path, question())
    assert opened.pids == set()


async def test_a_file_that_wants_more_memory_than_it_may_have_is_refused(tmp_path: Path) -> None:
    opened = Vocabularies(ManualClock(), that_opens("bytearray(3 * 2**30)"))
    with pytest.raises(FailedPrecondition, match="more memory") as failed:
        await opened.ask(EngineName.sim, tmp_path, question())
    assert failed.value.reason is Reason.MODEL_FILE_INVALID


async def test_it_ends_when_the_pool_manager_does(tmp_path: Path) -> None:
    """However that ends: the kernel closes the socket."""
    assert VOCABULARY_PROGRAM[-1] == read_vocabulary.__name__
    ours, theirs = socket.socketpair()
    with ours, theirs:
        orphan = await asyncio.create_subprocess_exec(*VOCABULARY_PROGRAM, "sim", str(tmp_path), stdin=theirs.fileno())
    async with asyncio.timeout(20):
        assert await orphan.wait() == 0
