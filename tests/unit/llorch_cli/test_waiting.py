"""What a command that waits for long says, where no terminal shows it as it comes."""

import asyncio

import pytest

from llorch.cli import waiting
from llorch.cli.waiting import Waiting


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SAY_SO_AFTER_S", 0.0)
    monkeypatch.setattr(waiting, "SAY_AGAIN_AFTER_S", 0.0)


async def said(capsys: pytest.CaptureFixture[str], times: int) -> list[str]:
    lines: list[str] = []
    async with asyncio.timeout(10):
        while len(lines) < times:
            await asyncio.sleep(0)
            lines += capsys.readouterr().err.splitlines()
    return lines


async def test_it_says_what_it_waits_for_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    with Waiting("coder", quiet=False) as waits:
        assert set(await said(capsys, 2)) == {"coder has not answered yet; `llorch ps` shows what it does."}
        waits.hear("coder loads on garage")
        assert (await said(capsys, 3))[-1] == "coder loads on garage"
        waits.is_over()
        capsys.readouterr()
        await asyncio.sleep(0.01)
        assert not capsys.readouterr().err


@pytest.mark.parametrize("quiet", [True, False])
async def test_it_says_nothing_where_it_is_to_be_quiet_or_the_wait_was_short(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    monkeypatch.setattr(waiting, "SAY_SO_AFTER_S", 0.0 if quiet else 10.0)
    with Waiting("coder", quiet=quiet) as waits:
        waits.hear("coder loads on garage")
        await asyncio.sleep(0.01)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
async def test_a_wait_for_a_place_is_told_with_the_task_and_not_where_something_else_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(waiting, "SAY_PLACE_AFTER_S", 0.02)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    place = "coder is busy: the task should begin in about 4.7 s; `llorch explain --task t-1` says what it waits for."
    with Waiting("coder", quiet=False) as waits:
        waits.expect("t-1", 4711)
        assert (await said(capsys, 1))[-1] == place
    with Waiting("coder", quiet=False) as waits:
        waits.expect("t-1", 4711)
        waits.hear("coder loads on garage")
        await asyncio.sleep(0.05)
    assert place not in capsys.readouterr().err.splitlines() or not terminal


async def test_a_task_that_has_its_place_is_not_said_to_wait_for_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SAY_PLACE_AFTER_S", 0.02)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Waiting("coder", quiet=False) as waits:
        waits.expect("t-1", 300)
        waits.begins()
        await asyncio.sleep(0.05)
    assert not capsys.readouterr().err
