"""When a repeated set-up has nothing to do."""

from pathlib import Path

import pytest

from environment import project_file, stamp
from environment.engine_build import Engine
from environment.stamp import Stamp

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("have", "want", "enough"),
    [
        (Engine.CPU, Engine.CPU, True),
        (Engine.GPU, Engine.CPU, True),
        (Engine.CPU, Engine.NONE, True),
        (Engine.NONE, Engine.NONE, True),
        (Engine.CPU, Engine.GPU, False),
        (Engine.NONE, Engine.CPU, False),
    ],
)
def test_more_than_wanted_is_enough_and_less_is_not(have: Engine, want: Engine, enough: bool) -> None:
    assert Stamp("project", "3.11", have).satisfies(Stamp("project", "3.11", want)) is enough


def test_another_python_or_another_project_is_not_enough() -> None:
    have = Stamp("project", "3.11", Engine.CPU)
    assert not have.satisfies(Stamp("project", "3.12", Engine.CPU))
    assert not have.satisfies(Stamp("changed", "3.11", Engine.CPU))


def test_a_stamp_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Stamp("project", "3.11", Engine.GPU)
    stamp.write(tmp_path / "stamp", written)
    assert stamp.read(tmp_path / "stamp") == written


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"project": "p", "python": "3.11", "engine": "tpu"}'])
def test_a_stamp_that_makes_no_sense_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "stamp").write_text(content)
    assert stamp.read(tmp_path / "stamp") is None


def test_no_stamp_is_none(tmp_path: Path) -> None:
    assert stamp.read(tmp_path / "missing") is None


def test_dependencies_change_the_fingerprint_and_lint_rules_do_not(tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    file = tmp_path / "pyproject.toml"
    fingerprints = []
    for variant in (text, text.replace("max-complexity = ", "max-complexity = 1"), text.replace("typer>=", "typer>")):
        file.write_text(variant)
        fingerprints.append(project_file.read(file).fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_the_engine_is_pinned_to_one_version() -> None:
    project = project_file.read(ROOT / "pyproject.toml")
    assert project.engine_requirement == f"llama-cpp-python=={project.engine_version}"
    assert project.engine_version
