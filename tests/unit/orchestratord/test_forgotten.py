import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.core.facts import forgotten as module
from orchestratord.core.facts.forgotten import ForgottenTasks


@given(st.lists(st.integers(0, 40)), st.integers(1, 8))
def test_the_last_ones_are_known_and_no_others(numbers: list[int], most: int) -> None:
    forgotten = ForgottenTasks(most)
    for number in numbers:
        forgotten.add(f"task-{number}")
    known = {number for number in range(50) if f"task-{number}" in forgotten}
    assert known == set(numbers[-most:])
    assert len(forgotten) == min(most, len(numbers))


@pytest.mark.parametrize(("last", "is_known"), [("ijklmnop", False), ("efghijkl", True)])
def test_what_lies_between_two_digests_is_none(monkeypatch: pytest.MonkeyPatch, last: str, *, is_known: bool) -> None:
    monkeypatch.setattr(module, "_digest", str.encode)
    forgotten = ForgottenTasks()
    for digest in ("abcdefgh", "ijklmnop", last):
        forgotten.add(digest)
    assert ("efghijkl" in forgotten) is is_known
