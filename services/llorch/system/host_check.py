"""What the daemons' preflights find on this machine, asked of them as programs."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from llorch import lifeline
from llorch.errors import Internal, Reason
from llorch.system.plan import DaemonPlan

# Longer than it takes a driver that hangs to be given up on, and then the engine.
_WITHIN_S = 150.0
_EXIT_SETTINGS = 2

# Names of the pool manager's checks.
_DEVICES = "devices"
_ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` says what to do about it; empty if all is well."""

    check: str
    level: Literal["ok", "warning", "failed"]
    found: str
    fix: str = ""


def check_host(plan: DaemonPlan) -> list[Finding]:
    """`plan` is how the pool manager would be started. Settings that can't be right are a finding too."""
    wrong, told = _ask_preflight(plan)
    return wrong or [_in_words_of_the_system(plan, entry) for entry in json.loads(told.splitlines()[-1])]


def check_settings(plan: DaemonPlan) -> list[Finding]:
    """A finding where the daemon would not start with its settings, or with the tables beside them."""
    wrong, _ = _ask_preflight(plan)
    return wrong


def _ask_preflight(plan: DaemonPlan) -> tuple[list[Finding], str]:
    """What is wrong with the settings, and else what it prints."""
    command = [sys.executable, "-P", "-m", f"{plan.name.replace('-', '_')}.preflight", *plan.arguments]
    try:
        asked = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            env={**os.environ, **lifeline.with_parent()},
        )
    except subprocess.TimeoutExpired as error:
        raise Internal(Reason.INTERNAL, f"the look at this machine is not done after {_WITHIN_S:g} s") from error
    if asked.returncode == _EXIT_SETTINGS:
        said = plan.in_words_of_the_system(_last_line(asked.stderr).removeprefix(f"{plan.name}: "))
        return [Finding("settings", "failed", said, "correct it; docs/configuration.md has all settings")], ""
    if asked.returncode != 0:
        raise Internal(Reason.INTERNAL, f"the look at this machine failed: {_last_line(asked.stderr)}")
    return [], asked.stdout


def without_models(findings: list[Finding]) -> list[Finding]:
    """The same of a machine that may decide and run no models: it needs no GPU, and then no engine either. A card whose
    driver does not answer is still to be mended.
    """
    if not any(finding.check == _DEVICES and finding.level == "failed" for finding in findings):
        return findings
    return [
        replace(finding, level="ok", found=f"{finding.found}; models run on other machines", fix="")
        if finding.check in (_DEVICES, _ENGINE) and finding.level == "failed"
        else finding
        for finding in findings
    ]


def _in_words_of_the_system(plan: DaemonPlan, entry: dict[str, Any]) -> Finding:
    finding = Finding(**entry)
    return replace(
        finding, found=plan.in_words_of_the_system(finding.found), fix=plan.in_words_of_the_system(finding.fix)
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
