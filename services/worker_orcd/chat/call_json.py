"""Tool calls as JSON in a text that may not be complete yet. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)
"""Lets line ends within strings pass, which models write now and then; NaN and the like do not."""
_SPACE = re.compile(r"\s*")
_LOOKAHEAD = 16
"""An error that lies this far before the end is one; nearer to it, the rest of a word may still come."""


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """`arguments` is JSON text of an object; empty where a model gave `texts` by key, which the tool's schema types."""

    name: str
    arguments: str
    texts: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value that ends at `end` of the text it was found in."""

    content: Any
    end: int


class NotJson(Exception):
    """No text that follows can make JSON of this."""


def next_value(text: str, at: int) -> Value | None:
    """The value that begins at `at`, after any white space; None if it is not complete. Raises NotJson."""
    begin = space_end(text, at)
    try:
        content, end = _DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Unterminated string") or error.pos > len(text) - _LOOKAHEAD:
            return None
        raise NotJson from None
    except (RecursionError, ValueError):
        raise NotJson from None
    return Value(content, end)


def space_end(text: str, at: int) -> int:
    """Where the white space that begins at `at` ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def as_call(content: Any) -> ParsedCall | None:
    """The call that a JSON value is, in any of the spellings that models use; None if it is none."""
    if not isinstance(content, Mapping):
        return None
    inner = content.get("function")
    if isinstance(inner, Mapping):
        content = inner
    name = content.get("name")
    given = content.get("arguments", content.get("parameters", {}))
    arguments = arguments_text(given)
    if not isinstance(name, str) or not name or arguments is None or not _is_text(name):
        return None
    return ParsedCall(name, arguments)


def arguments_text(given: Any) -> str | None:
    """Arguments as JSON text; models give them as an object or as the text of one. None if they are neither."""
    try:
        if isinstance(given, str):
            given = _DECODER.decode(given) if given.strip() else {}
        if given is None:
            return "{}"
        if not isinstance(given, dict):
            return None
        written = json.dumps(given, ensure_ascii=False, allow_nan=False)
        return written if _is_text(written) else json.dumps(given, allow_nan=False)
    except (ValueError, TypeError, RecursionError):  # Python has values that JSON has not
        return None


def _is_text(text: str) -> bool:
    """Halves of characters, which JSON can spell, are none."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
