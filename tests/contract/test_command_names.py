"""Every `llorch ...` that code, contract or documents name is a command that there is, with the options it has."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import document_settings
from llorch.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("proto/**/*.proto"), *ROOT.glob("docs/examples/*")]
OPTION_TEXTS = [
    *(ROOT / name for name in ("README.md", "SECURITY.md")),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("proto/**/*.proto"),
    *ROOT.glob("services/**/*.py"),
]
CODE = [*ROOT.glob("services/**/*.py"), *ROOT.glob("scripts/*.py")]
_QUOTED = re.compile(r"`(llorch(?: [^`]*)?)`")
_LINE = re.compile(r"^ *(?:\$ )?(llorch (?:[^#\n\\]|\\\n)*)", re.MULTILINE)
_BLOCK = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_AT_THE_END = re.compile(r": (llorch [a-z][^`\n]*)$")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")

FOREIGN_OPTIONS = frozenset({"--force-reinstall", "--no-cache-dir", "--upgrade", "--protocol"})
"""Of pip and buf."""


@functools.cache
def group() -> Any:
    return typer.main.get_command(main.app)


def mistakes(line: str) -> list[str]:
    """What is wrong with a command line as a text names it: words, options, `MODEL`, `…`."""
    command, found = group(), []
    words = line.replace("\\\n", " ").split()[1:]
    for word in words:
        if word in ("&", "&&", "|", ">", ">>"):
            break
        if word.startswith("-") and word.strip("-…."):
            found += _option_mistakes(command, word)
        elif children := getattr(command, "commands", None):
            names = [name.strip(",") for name in word.split("|")]
            if missing := [name for name in names if _is_name(name) and name not in children]:
                return [f"{line}: no command {name}" for name in missing]
            command = children.get(names[0], command)
    return found


def _is_name(word: str) -> bool:
    return re.fullmatch(r"[a-z][a-z-]*", word) is not None


def _option_mistakes(command: Any, word: str) -> list[str]:
    option = word.partition("=")[0].strip("`,.;:")
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return [] if option in known else [f"{command.name} has no option {option}"]


def named_in_texts() -> Iterator[str]:
    for path in TEXTS:
        text = path.read_text()
        yield from _QUOTED.findall(re.sub(r"\n *(?:// ?)?", " ", text) if path.suffix == ".proto" else text)
        for block in _BLOCK.findall(text):
            yield from _LINE.findall(block)


def named_in_code() -> Iterator[str]:
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from _QUOTED.findall(node.value) + _AT_THE_END.findall(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
                yield from _QUOTED.findall("".join(map(str, parts)))
        for comment in re.findall(r"# (.*)", path.read_text()):
            yield from _QUOTED.findall(comment)


def test_texts_name_commands_that_there_are() -> None:
    named = list(named_in_texts())
    assert len(named) > 50
    assert [mistake for line in named for mistake in mistakes(line)] == []


def test_code_names_commands_that_there_are() -> None:
    named = list(named_in_code())
    assert len(named) > 10
    assert [mistake for line in named for mistake in mistakes(line)] == []


def test_options_that_are_named_are_options_of_a_program() -> None:
    named = {option for path in OPTION_TEXTS for option in _OPTION.findall(path.read_text())}
    assert len(named) > 50
    assert named - set(options_of(group())) - set(daemon_flags()) - FOREIGN_OPTIONS - {"--help"} == set()


def options_of(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for child in getattr(command, "commands", {}).values():
        yield from options_of(child)


def daemon_flags() -> Iterator[str]:
    return (f"--{name.replace('_', '-')}" for daemon in document_settings.DAEMONS for name in daemon.model_fields)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("llorch pool drian garage", "llorch pool drian garage: no command drian"),
        ("llorch top", "llorch top: no command top"),
        ("llorch load coder --onto garage", "load has no option --onto"),
        ("llorch load coder --on garage/3060", ""),
        ("llorch pool drain|reload|purge POOL", ""),
    ],
)
def test_what_there_is_not_is_found(line: str, mistake: str) -> None:
    assert mistakes(line) == ([mistake] if mistake else [])
