"""Every command explains itself, and docs/cli.md knows it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from llorch.cli import exit_codes, main

DOCUMENT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    for name, command in typer.main.get_command(main.app).commands.items():  # type: ignore[attr-defined]  # a group
        yield name, command
        for inner, below in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", below


ALL = dict(commands())


def test_the_commands_of_this_release_are_there() -> None:
    assert ALL.keys() >= {"up", "run", "ps", "models", "models add", "models show", "gpus", "version"}


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_and_is_documented(name: str) -> None:
    assert ALL[name].help
    assert f"`llorch {name}" in DOCUMENT


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_help(name: str) -> None:
    for option in ALL[name].params:
        assert option.help, option.name


def test_every_option_of_up_is_documented() -> None:
    for option in ALL["up"].params:
        assert f"`{option.opts[0]}" in DOCUMENT


def test_every_exit_code_is_documented() -> None:
    codes = [value for name, value in vars(exit_codes).items() if name.isupper()]
    assert len(codes) == 5
    for code in codes:
        assert f"| {code} |" in DOCUMENT


def test_help_imports_nothing_that_costs_time() -> None:
    heavy = ("grpc", "google.protobuf", "pydantic", "psutil", "structlog", "rich.table")
    code = f"import sys, llorch.cli.main; print([name for name in {heavy} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
