"""Calls like `name.call(key="value")`: where they end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from support.example_count import examples
from worker_orcd.chat.python_call import call_at, may_close

PIECES = st.lists(st.sampled_from(['"', "'", "\\", "(", ")", "[", "]", "{", "}", "a", "é", " ", "=", ",", "\n", "1"]))


def closing(text: str, begin: int) -> int | None:
    """Character by character."""
    depth, quote, at = 1, "", begin
    while at < len(text):
        character = text[at]
        if quote and character == "\\":
            at += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if not 0 < depth <= 50:
            return at
        at += 1
    return None


@settings(max_examples=examples(600), deadline=None)
@given(PIECES)
def test_a_call_may_close_until_its_bracket_has_whatever_is_in_quotes(pieces: list[str]) -> None:
    text = "f.call(" + "".join(pieces)
    assert may_close(text) == (closing(text, len("f.call(")) is None)


def test_a_call_ends_with_its_bracket() -> None:
    text = 'f.call(a=\'(\\\')\', b=[1, {"x": ")"}]) and (more)'
    found = call_at(text)
    assert found is not None
    name, arguments, end = found
    assert (name, arguments) == ("f", {"a": "(')", "b": [1, {"x": ")"}]})
    assert text[end:] == " and (more)"


def test_too_many_brackets_are_no_call() -> None:
    assert may_close("f.call(" + "[" * 49)
    assert not may_close("f.call(" + "[" * 50)
    assert call_at("f.call(" + "[" * 60 + "]" * 60 + ")") is None


def test_what_is_longer_than_a_call_may_be_is_none() -> None:
    assert may_close("f.call(a='" + "x" * 60_000)
    assert not may_close("f.call(a='" + "x" * 70_000)
