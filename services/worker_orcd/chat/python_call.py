"""Tool calls as Llama 3 writes those of built-in tools: `name.call(key="value")`. Pure."""

import ast
import re

_HEAD = re.compile(r"\s{0,8}([A-Za-z_][A-Za-z0-9_-]{0,63})\.call\(")
_HEAD_SO_FAR = re.compile(r"\s{0,8}(?:[A-Za-z_][A-Za-z0-9_-]{0,63}(?:\.(?:c(?:a(?:l(?:l)?)?)?)?)?)?")
_STEP = re.compile(r"""\"[^"\\]*+(?:\\.[^"\\]*+)*+\"|'[^'\\]*+(?:\\.[^'\\]*+)*+'|["'()\[\]{}]""", re.DOTALL)
"""A text in quotes, a quote without its end, or a bracket. All of a call is gone through for every token with a bracket
in it: as a pattern that takes a fiftieth of the time.
"""
_QUOTES = ('"', "'")
_MOST_CHARACTERS = 64 * 1024
_DEEPEST = 50


def head_may_come(text: str) -> bool:
    """Whether more text can make the beginning of a call of this."""
    return _HEAD_SO_FAR.fullmatch(text) is not None


def begins_call(text: str) -> bool:
    return _HEAD.match(text) is not None


def may_close(text: str) -> bool:
    """Whether more text can close the call that the text begins with."""
    head = _HEAD.match(text)
    return head is not None and len(text) < _MOST_CHARACTERS and _closing(text, head.end()) is None


def call_at(text: str) -> tuple[str, dict[str, object], int] | None:
    """Name, arguments and where it ends; None if the text does not begin with a complete call of values by name."""
    head = _HEAD.match(text)
    end = _closing(text, head.end()) if head else None
    if head is None or end is None:
        return None
    try:
        parsed = ast.parse(f"f({text[head.end() : end]})", mode="eval").body
        assert isinstance(parsed, ast.Call)  # the text around it is ours
        if parsed.args or any(keyword.arg is None for keyword in parsed.keywords):
            return None
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in parsed.keywords}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, AssertionError):
        return None
    return head.group(1), arguments, end + 1


def _closing(text: str, begin: int) -> int | None:
    """Where the bracket closes that was opened before `begin`, or where too many are open."""
    depth = 1
    for step in _STEP.finditer(text, begin, min(len(text), _MOST_CHARACTERS)):
        what = step.group()
        if what in _QUOTES:
            return None
        if len(what) > 1:
            continue
        depth += 1 if what in "([{" else -1
        if not 0 < depth <= _DEEPEST:
            return step.start()
    return None
