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
_MOST_BEFORE_ARGUMENTS = 2048
"""Characters. A call with more before its arguments is read when it is whole."""
_KEY = re.compile(r'\s*"([^"\\]{1,64})"\s*:\s*')
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
    name = content.get("name", inner)
    given = content.get("arguments", content.get("parameters", {}))
    arguments = arguments_text(given)
    if not isinstance(name, str) or not name or arguments is None or not _is_text(name):
        return None
    return ParsedCall(name, arguments)


@dataclass(frozen=True, slots=True)
class CallHead:
    """A call of which the name is known, and that its arguments are an object, which begins at `at`. `levels` objects
    are open around it.
    """

    name: str
    at: int
    levels: int


def call_head(text: str, begin: int) -> CallHead | None:
    """The head of the call that begins there, in any of the spellings with the name before the arguments; None if it is
    not known yet, or never will be. More text does not change it.
    """
    at, levels, name = space_end(text, begin), 0, ""
    expected = "{"
    while (
        at < begin + _MOST_BEFORE_ARGUMENTS
        and text.startswith(expected, at)
        and (key := _KEY.match(text, at + 1)) is not None
    ):
        levels += expected == "{"
        at = key.end()
        is_object = text.startswith("{", at)
        if is_object and name and key.group(1) in ("arguments", "parameters"):
            return CallHead(name, at, levels)
        if is_object and levels == 1 and key.group(1) == "function":
            expected, name = "{", ""
            continue
        value = _value_or_none(text, at)
        if value is None:
            return None
        if isinstance(value.content, str) and (key.group(1) == "name" or (key.group(1) == "function" and not name)):
            name = value.content
        expected, at = ",", space_end(text, value.end)
    return None


def enclosing_end(text: str, levels: int, is_whole: bool) -> int | None:
    """Where so many objects end, of which the beginnings and the last value came before the text; 0 if they do not end
    as JSON does, None if more has to come.
    """
    before = '{"":' * levels + "{}"
    try:
        value = next_value(before + text, 0)
    except NotJson:
        return 0
    if value is None:
        return 0 if is_whole else None
    return value.end - len(before)


def _value_or_none(text: str, at: int) -> Value | None:
    try:
        return next_value(text, at)
    except NotJson:
        return None


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
