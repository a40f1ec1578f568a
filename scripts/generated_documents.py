"""What the scripts that write documents have in common: tables, and the check of what is committed."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def in_cell(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")


def write_or_check(wanted: Mapping[Path, str], source: str, arguments: Sequence[str]) -> int:
    """The exit code. `--check` changes nothing, and prints which files differ from what `source` yields."""
    outdated = [file for file, content in wanted.items() if not file.is_file() or file.read_text() != content]
    if list(arguments) == ["--check"]:
        for file in outdated:
            print(f"{file} is not what {source} say; run `make gen`", file=sys.stderr)
        return int(bool(outdated))
    for file, content in wanted.items():
        file.write_text(content)
    return 0
