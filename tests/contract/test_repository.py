"""The repository stands alone: nothing in it depends on where it was written, and nothing in it is unfinished."""

import fnmatch
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Put together here, so that this file does not find itself.
MACHINE_PATHS = ("/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/", "/Us" + "ers/", "../sha" + "red")
PACKAGE_HOSTS = ("py" + "pi.org", "python" + "hosted.org", "github" + ".io/")
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
UNTELLING_NAMES = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
WRITTEN_BY_US = {".py", ".proto", ".toml", ".yaml", ".md", ".sh", ""}


def repository_files() -> list[Path]:
    """Tracked files and new ones that are not ignored; in an unpacked archive without git, nothing can be said."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def written_files() -> list[Path]:
    return [
        file
        for file in repository_files()
        if file.suffix in WRITTEN_BY_US and file.name != "LICENSE" and not file.is_relative_to(ROOT / "gen")
    ]


@pytest.mark.parametrize("words", [MACHINE_PATHS, PACKAGE_HOSTS, UNFINISHED], ids=["paths", "hosts", "unfinished"])
def test_no_file_names_what_does_not_belong_into_a_repository(words: tuple[str, ...]) -> None:
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}" for word in words))
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in written_files()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_module_has_a_name_that_tells_nothing() -> None:
    assert [str(file) for file in written_files() if file.name in UNTELLING_NAMES] == []


def test_the_files_that_contributing_names_exist() -> None:
    """Paths there may leave out the first folders; an ellipsis, or a word in angle brackets, stands for any name."""
    files = [f"/{file.relative_to(ROOT)}" for file in repository_files()]
    known = [*files, *{f"{parent}/" for name in files for parent in Path(name).parents}]
    named = set(re.findall(r"`([\w./…<>-]+(?:\.py|\.proto|\.md|/))`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert len(named) > 60
    patterns = {name: re.sub("…|<[^>]*>", "*", name) for name in sorted(named)}
    assert [name for name, pattern in patterns.items() if not fnmatch.filter(known, f"*/{pattern}")] == []


def test_nothing_generated_by_tools_is_tracked() -> None:
    names = {part for file in repository_files() for part in file.relative_to(ROOT).parts}
    assert names & {".venv", "build", "__pycache__", ".mypy_cache", ".pytest_cache", ".deps"} == set()


def test_the_licence_is_gpl_3_or_later() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 3, 29 June 2007" in text
    assert len(text) > 30_000
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "GPL-3.0-or-later"


def test_continuous_integration_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert any("make test" in line for line in lines)


def test_every_rule_that_is_switched_off_has_its_reason() -> None:
    """`noqa` and `type: ignore` name their rule, and say why in the same comment or the one before it."""
    bare = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in written_files()
        if file.suffix == ".py"
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"# (noqa(?!: [A-Z]+\d+)|type: ignore(?!\[))", line)
    ]
    assert bare == []
