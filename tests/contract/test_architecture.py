"""docs/architecture.md says where things happen: what it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "services"
TEXT = (ROOT / "docs" / "architecture.md").read_text()
SECTION = TEXT.partition("## How a request finds its place\n")[2].partition("\n## ")[0]
SENTENCES = re.split(r"^\d+\. ", SECTION, flags=re.MULTILINE)[1:]
NAMED = re.compile(r"`(?P<file>[a-z_]+(?:/[a-z_]+)+\.py)(?::(?P<name>[A-Za-z_.]+))?`")


@pytest.mark.parametrize("sentence", SENTENCES, ids=range(1, len(SENTENCES) + 1))
def test_every_sentence_on_a_requests_way_names_a_function(sentence: str) -> None:
    assert any(match["name"] for match in NAMED.finditer(sentence))


def test_the_way_is_told_from_the_servicer_to_the_end() -> None:
    assert len(SENTENCES) > 15


@pytest.mark.parametrize("match", list(NAMED.finditer(TEXT)), ids=lambda match: match[0])
def test_what_is_named_is_there(match: "re.Match[str]") -> None:
    file = SERVICES / match["file"]
    assert file.is_file()
    assert match["name"] is None or match["name"] in names_of(file)


@cache
def names_of(file: Path) -> frozenset[str]:
    """Functions, classes and methods of a module, as `name` or `Class.method`."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found.update(f"{node.name}.{one.name}" for one in inner)
    return frozenset(found)


def test_a_name_that_is_gone_is_found() -> None:
    assert "no_such_function" not in names_of(SERVICES / "orchestratord" / "core" / "brain.py")
