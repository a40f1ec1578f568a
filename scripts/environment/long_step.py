"""A command that may take minutes: its output goes into a log, and the terminal shows that it goes on."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from environment.errors import SetUpError

REPORT_EVERY_S = 10.0
SHOWN_OF_LOG = 25


def run(
    command: Sequence[str],
    *,
    title: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    hint: str = "",
    report_every_s: float = REPORT_EVERY_S,
) -> None:
    """Raises SetUpError with the end of the log, `hint` and the log's place if the command fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{title} …", flush=True)
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        try:
            _wait(process, started, report_every_s)
        finally:
            _end(process)
    if process.returncode:
        raise SetUpError(_describe_failure(title, process.returncode, log, hint))
    print(f"  done in {time.monotonic() - started:.0f} s", flush=True)


def _wait(process: subprocess.Popen[bytes], started: float, report_every_s: float) -> None:
    while True:
        try:
            process.wait(report_every_s)
        except subprocess.TimeoutExpired:
            print(f"  still working, {time.monotonic() - started:.0f} s so far", flush=True)
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C reaches the command as well, which then ends by itself, in a bounded time."""
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _describe_failure(title: str, code: int, log: Path, hint: str) -> str:
    last = log.read_text(errors="replace").splitlines()[-SHOWN_OF_LOG:]
    shown = "\n".join(f"  | {line}" for line in last)
    failure = f"{title}: failed with exit code {code}. The end of its output:\n{shown}\nAll of it: {log}"
    return f"{failure}\n{hint}" if hint else failure
