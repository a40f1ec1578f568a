"""docs/requirements.md as data."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "requirements.md"
STATES = frozenset({"done", "part", "open"})
_WAITING = "## Parts of the contract that wait for a requirement\n"
_WAITING_ROW = re.compile(r"^\| *([A-Z]+-\d{4}) *\| *(`[^|]+`) *\|$", re.MULTILINE)
_ROW = re.compile(r"^\| *([A-Z]+-\d{4}) *\| *(.+?) *\| *(\d) *\| *(.+?) *\|$")


@dataclass(frozen=True, slots=True)
class Requirement:
    identifier: str
    text: str
    release: int
    state: str
    """Starts with one of STATES."""


@functools.cache
def read() -> dict[str, Requirement]:
    """By id. Raises ValueError on an id that is there twice."""
    found: dict[str, Requirement] = {}
    for line in DOCUMENT.read_text().splitlines():
        if row := _ROW.match(line):
            identifier, text, release, state = row.groups()
            if identifier in found:
                raise ValueError(f"{DOCUMENT.name} has {identifier} twice")
            found[identifier] = Requirement(identifier, text, int(release), state)
    return found


def waiting_parts() -> list[tuple[str, str]]:
    """Parts of the contract that no service uses yet, each with the requirement that needs it."""
    table = DOCUMENT.read_text().partition(_WAITING)[2]
    rows = _WAITING_ROW.findall(table)
    return [(part, identifier) for identifier, parts in rows for part in re.findall(r"`([^`]+)`", parts)]
