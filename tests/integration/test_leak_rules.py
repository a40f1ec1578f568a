"""The rules of tests/conftest.py are in force: a test that leaves something behind fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

LEAKY = """
import asyncio, socket, subprocess
import pytest
from support import leaks

leaks.GRACE_S = 0.05
kept = []


async def test_task():
    kept.append(asyncio.create_task(asyncio.Event().wait()))

def test_socket():
    kept.append(socket.socket())

def test_child():
    kept.append(subprocess.Popen(["sleep", "60"]))

def test_orphan():
    subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 &"], check=True)

async def test_clean():
    await asyncio.create_task(asyncio.sleep(0))
"""

UNKNOWN = """
import pytest

@pytest.mark.req("{unknown}")
def test_claims_too_much():
    pass
"""


def run_pytest(folder: Path, content: str, *more_options: str) -> str:
    file = folder / "test_inner.py"
    file.write_text(content)
    options = ["-c", str(TESTS.parent / "pyproject.toml"), "-p", "conftest", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *more_options, str(file)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]], ids=["in one process", "in two processes"])
def test_every_kind_of_leak_fails_its_test_and_no_other(tmp_path: Path, processes: list[str]) -> None:
    output = run_pytest(tmp_path, LEAKY, *processes)
    assert set(re.findall(r"^ERROR .*::(\w+)", output, re.MULTILINE)) == {
        "test_task",
        "test_socket",
        "test_child",
        "test_orphan",
    }, output
    assert "5 passed" in output


@pytest.mark.req("TEST-7007")
@pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]], ids=["in one process", "in two processes"])
def test_a_claim_to_prove_an_unknown_requirement_fails(tmp_path: Path, processes: list[str]) -> None:
    output = run_pytest(tmp_path, UNKNOWN.format(unknown="ORCH-9999"), *processes)
    assert "ORCH-9999" in output
    assert "docs/requirements.md" in output
    assert "passed" not in output
