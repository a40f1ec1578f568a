"""What a look at one thing of this machine found. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # models run, but something is not as its owner may think
    FAILED = "failed"  # models can't run, or not all that should


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` says what the owner of the machine does about it; empty if all is well."""

    check: str
    level: Level
    found: str
    fix: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, fix: str) -> Finding:
    return Finding(check, Level.WARNING, found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    return Finding(check, Level.FAILED, found, fix)
