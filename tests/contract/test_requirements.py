"""docs/requirements.md, and what the tests claim about it."""

import re
from pathlib import Path

from support import requirements

TESTS = Path(__file__).resolve().parents[1]
MARK = re.compile(r"mark\.req\(([^)]*)\)")


def claimed() -> dict[str, set[str]]:
    """Requirement → test files that claim to prove it."""
    found: dict[str, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        for arguments in MARK.findall(file.read_text()):
            for identifier in re.findall(r"[A-Z]+-\d{4}", arguments):
                found.setdefault(identifier, set()).add(file.name)
    return found


def test_every_row_has_a_release_and_a_known_state() -> None:
    rows = requirements.read()
    assert len(rows) == 91
    for row in rows.values():
        assert row.release in (1, 2, 3), row
        assert re.split(r":| ", row.state)[0] in requirements.STATES, row


def test_what_is_called_done_has_a_test() -> None:
    done = {row.identifier for row in requirements.read().values() if row.state.startswith("done")}
    assert done - claimed().keys() == set()


def test_what_the_tests_claim_exists_and_is_at_least_begun() -> None:
    rows = requirements.read()
    assert claimed().keys() - rows.keys() == set()
    assert {identifier for identifier in claimed() if rows[identifier].state.startswith("open")} == set()
