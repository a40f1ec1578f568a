from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llorch.cli import main
from support.free_ports import free_port

Llorch = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("command", [["ps"], ["gpus"], ["models"], ["run", "smollm2", "Hi"]])
def test_where_no_orchestrator_answers_the_remedy_is_one_line_and_exit_code_3(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port()}"

    assert main.execute([*command, "--address", address]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"llorch: no orchestrator answers at {address}: start one with `llorch up`\n"


async def test_a_refusal_is_one_line_and_exit_code_1(llorch: Llorch) -> None:
    result = await llorch("run", "smolm2", "Hi")

    assert (result.code, result.out) == (1, "")
    assert result.err == 'llorch: no model "smolm2" here; the nearest name is "smollm2"\n'


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "smollm2"], "prompt"),
        (["run", "smollm2", ""], "prompt: is empty"),
        (["tokens", "smollm2", ""], "prompt: is empty"),
        (["models", "rm", "-x"], "a name that begins with - goes behind --"),
        (["models", "add", "coder", ""], "source: is empty"),
        (["run", "smollm2", "Hi", "--max-tokens", "0"], "--max-tokens"),
        (["run", "smollm2", "Hi", "--max-tokens", "many"], "--max-tokens"),
        (["runn"], "runn"),
        (["ps", "--adress", "x"], "--adress"),
        (["ps", "--address", "http://garage"], "host:port"),
        (["models", "add", "coder", "x.gguf", "--context", "1"], "--context"),
    ],
)
def test_wrong_usage_names_the_thing_and_is_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.execute(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert len(said.err.splitlines()) == 1


def test_version_works_where_no_orchestrator_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(["version", "--address", f"127.0.0.1:{free_port()}"]) == 0
    assert "no orchestrator answers" in capsys.readouterr().out


@pytest.mark.parametrize("debug", [False, True])
def test_a_traceback_is_shown_only_to_those_who_ask(
    debug: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLORCH_DEBUG", "1" if debug else "")
    monkeypatch.setattr("llorch.cli.connecting.asyncio.run", _break)

    if debug:
        with pytest.raises(ZeroDivisionError):
            main.execute(["ps"])
    else:
        assert main.execute(["ps"]) == 1
        assert "ZeroDivisionError" in capsys.readouterr().err


def _break(work: Any) -> None:
    work.close()
    raise ZeroDivisionError


def test_a_data_folder_that_cannot_be_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(["up", "--any-ports", "--data-dir", "/dev/null/x"]) == 2
    assert capsys.readouterr().err == "llorch: data_dir: /dev/null/x/logs can't be made: Not a directory\n"
