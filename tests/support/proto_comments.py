"""The comments of the contract, as people wrote them: generated code has none."""

import re
from pathlib import Path

PROTOS = Path(__file__).resolve().parents[2] / "proto" / "llama_orch" / "v2"

_MESSAGE = re.compile(r"message (\w+) \{")
_COMMENT = re.compile(r"\s+// ?(.*)")
_FIELD = re.compile(r"\s+(?:optional |repeated )?[\w.]+(?:<[^>]*>)? (\w+) = \d+")


def field_comments(message: str) -> dict[str, str]:
    """By the name of the field, each in one line."""
    found = {}
    comment: list[str] = []
    for line in _lines(message):
        if said := _COMMENT.fullmatch(line):
            comment.append(said[1])
            continue
        if field := _FIELD.match(line):
            found[field[1]] = " ".join(comment)
        comment = []
    return found


def _lines(message: str) -> list[str]:
    for file in PROTOS.glob("*.proto"):
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            if (begin := _MESSAGE.match(line)) and begin[1] == message:
                return lines[number + 1 : lines.index("}", number)]
    raise LookupError(f"no message {message}")
