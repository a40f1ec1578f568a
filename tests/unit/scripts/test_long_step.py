"""A long command: its progress is shown, its failure is explained."""

import sys
from pathlib import Path

import pytest

from environment import long_step
from environment.errors import SetUpError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_progress_is_shown_while_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long_step.run(python("import time; time.sleep(0.3)"), title="Building", log=tmp_path / "log", report_every_s=0.1)
    shown = capsys.readouterr().out
    assert shown.startswith("Building …\n  still working, ")
    assert "  done in " in shown


def test_a_failure_shows_the_end_of_the_output_the_log_and_the_hint(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    code = "print('first'); [print('line', i) for i in range(100)]; raise SystemExit(3)"
    with pytest.raises(SetUpError) as failure:
        long_step.run(python(code), title="Building", log=log, hint="No compiler.")
    message = str(failure.value)
    assert message.startswith("Building: failed with exit code 3.")
    assert "  | line 99\n" in message
    assert "first" not in message
    assert message.endswith(f"All of it: {log}\nNo compiler.")
    assert log.read_text().startswith("first\n")


def test_the_environment_is_added_to_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLORCH_TEST_OURS", "1")
    code = "import os; print(os.environ['LLORCH_TEST_OURS'], os.environ['CMAKE_ARGS'])"
    long_step.run(python(code), title="Asking", log=tmp_path / "log", environment={"CMAKE_ARGS": "-DX=ON"})
    assert (tmp_path / "log").read_text() == "1 -DX=ON\n"
