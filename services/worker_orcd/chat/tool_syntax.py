"""Tool calls in the ways in which model families write them. Pure.

Each scan is handed the text after the opening mark, as far as it came, and returns what it found there: one call, or
the beginning of one. It is asked again with more text for as long as it answers None; with `is_whole` nothing follows,
and it has to decide. What it found says what closes the call, and whether another one follows at once.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from worker_orcd.chat.call_json import (
    NotJson,
    ParsedCall,
    Value,
    arguments_text,
    as_call,
    call_head,
    enclosing_end,
    next_value,
    space_end,
)
from worker_orcd.chat.chat_format import ToolStyle
from worker_orcd.chat.function_tags import OPENING, function_at, head_is_right
from worker_orcd.chat.python_call import begins_call, call_at, head_may_come, may_close


@dataclass(frozen=True, slots=True)
class Closed:
    """Where a call ends, with what closes it. Where `again` is, the text up to `mark_end` opens another call, which it
    reads.
    """

    end: int
    again: "Scan | None" = None
    mark_end: int = 0


Close = Callable[[str, bool], Closed | None]
"""Handed what follows the arguments. What closes a call may be missing, and is then no part of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A call that is complete up to `end`, but for what closes it."""

    call: ParsedCall
    end: int
    close: Close


@dataclass(frozen=True, slots=True)
class Begun:
    """It is a call of this tool, whatever follows. Its arguments begin with the brace at `at`."""

    name: str
    at: int
    close: Close


class NoCall:
    """It is text like other text."""


NO_CALL = NoCall()

Scan = Callable[[str, bool, Collection[str]], Found | Begun | NoCall | None]
"""A call is begun if its tool is among those of the last argument; of others nothing is told before they are whole."""

_CloseAt = Callable[[str, int, bool], Closed | None]

_HERMES_CLOSE = "</tool_call>"
_MISTRAL_HEAD = re.compile(
    r"\s{0,8}([A-Za-z0-9_.-]{1,64})\s{0,8}(?:\[CALL_ID\][A-Za-z0-9_-]{0,64}\s{0,8})?(?:\[ARGS\]\s{0,8})?(?=\{)"
)
_MISTRAL_HEAD_CHARACTERS = 200
"""No head is longer."""
_DEEPSEEK_CLOSE = "<｜tool▁calls▁end｜>"
_DEEPSEEK_CALL, _DEEPSEEK_CALL_CLOSE = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_DEEPSEEK_HEAD = re.compile(
    r"\s{0,8}<｜tool▁call▁begin｜>\s{0,8}([^\s<`]{1,64})\s{0,8}<｜tool▁sep｜>\s{0,8}"
    r"(?:([^\s`{]{1,64})\s{0,8}```(?:json)?\s{0,8})?(?=\{)"
)
_DEEPSEEK_HEAD_CHARACTERS = 250
_FENCE = "```"


def hermes(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
    begin = space_end(text, 0)
    if text.startswith(OPENING, begin) or (not is_whole and OPENING.startswith(text[begin:])):
        return _in_tags(text, begin, is_whole)
    return _list_or_object(text, begin, is_whole, offered, _hermes_close)


def llama3(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
    if not begins_call(text):
        if not is_whole and text.strip() and head_may_come(text):
            return None
        return object_alone(text, is_whole, offered)
    found = call_at(text)
    if found is None:
        return None if not is_whole and may_close(text) else NO_CALL
    name, given, end = found
    arguments = arguments_text(given)
    return NO_CALL if arguments is None else Found(ParsedCall(name, arguments), end, _nothing)


def object_alone(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
    return _object(text, 0, is_whole, offered, _nothing_at)


def mistral(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
    begin = space_end(text, 0)
    if text.startswith(("[", "{"), begin):
        return _list_or_object(text, begin, is_whole, offered, _nothing_at)
    head = _MISTRAL_HEAD.match(text)
    if head is not None:
        return _arguments(head.group(1), text, head.end(), is_whole, offered, _nothing)
    may_come = not is_whole and "{" not in text and len(text) < _MISTRAL_HEAD_CHARACTERS
    return None if may_come else NO_CALL


def deepseek(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
    """`function<sep>name` with a block of JSON (R1, V3), or `name<sep>{…}` (V3.1)."""
    head = _DEEPSEEK_HEAD.match(text)
    if head is None:
        may_come = not is_whole and "{" not in text and len(text) < _DEEPSEEK_HEAD_CHARACTERS
        return None if may_come else NO_CALL
    close = _deepseek_block_close if head.group(2) else _deepseek_close
    return _arguments(head.group(2) or head.group(1), text, head.end(), is_whole, offered, close)


def of_tool(name: str) -> Scan:
    """Reads the arguments of a call of which the name came before."""

    def scan(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
        return _arguments(name, text, space_end(text, 0), is_whole, offered, _nothing)

    return scan


SCANS: dict[ToolStyle, Scan] = {
    ToolStyle.HERMES: hermes,
    ToolStyle.LLAMA3: llama3,
    ToolStyle.MISTRAL: mistral,
    ToolStyle.DEEPSEEK: deepseek,
}


def _object(
    text: str, begin: int, is_whole: bool, offered: Collection[str], close: _CloseAt
) -> Found | Begun | NoCall | None:
    """An object that says which tool, with which arguments."""
    head = call_head(text, begin)
    if head is not None and head.name in offered:
        return Begun(head.name, head.at, _after_objects(head.levels, close))
    value = _object_at(text, begin, is_whole)
    if not isinstance(value, Value):
        return value
    call = as_call(value.content)
    return NO_CALL if call is None else Found(call, value.end, _after_objects(0, close))


def _list_or_object(
    text: str, begin: int, is_whole: bool, offered: Collection[str], close: _CloseAt
) -> Found | Begun | NoCall | None:
    if not text.startswith("[", begin):
        return _object(text, begin, is_whole, offered, close)
    return _object(text, begin + 1, is_whole, offered, _list_close(close))


def _arguments(
    name: str, text: str, begin: int, is_whole: bool, offered: Collection[str], close: Close
) -> Found | Begun | NoCall | None:
    """An object that is the arguments."""
    if name in offered and text.startswith("{", begin):
        return Begun(name, begin, close)
    value = _object_at(text, begin, is_whole)
    if not isinstance(value, Value):
        return value
    arguments = arguments_text(value.content)
    return NO_CALL if arguments is None else Found(ParsedCall(name, arguments), value.end, close)


def _object_at(text: str, at: int, is_whole: bool) -> Value | NoCall | None:
    """The object that begins there; None if it is not complete, NO_CALL if it will never be one."""
    begin = space_end(text, at)
    if begin == len(text):
        return NO_CALL if is_whole else None
    if text[begin] != "{":
        return NO_CALL
    try:
        value = next_value(text, begin)
    except NotJson:
        return NO_CALL
    return NO_CALL if value is None and is_whole else value


def _in_tags(text: str, begin: int, is_whole: bool) -> Found | NoCall | None:
    """Values in tags are told when all of them are there: what a value is, the end of its tag and the tool's schema
    say.
    """
    found = function_at(text, begin)
    if found is None:
        return None if not is_whole and head_is_right(text, begin) else NO_CALL
    name, texts, end = found
    return Found(ParsedCall(name, "", texts), end, _after_objects(0, _hermes_close))


def _nothing(_text: str, _is_whole: bool) -> Closed:
    return Closed(0)


def _nothing_at(_text: str, at: int, _is_whole: bool) -> Closed:
    return Closed(at)


def _after_objects(levels: int, close: _CloseAt) -> Close:
    """First the objects end that are open around the arguments."""

    def after(text: str, is_whole: bool) -> Closed | None:
        end = enclosing_end(text, levels, is_whole) if levels else 0
        return None if end is None else close(text, end, is_whole)

    return after


def _hermes_close(text: str, at: int, is_whole: bool) -> Closed | None:
    after = space_end(text, at)
    if text.startswith(_HERMES_CLOSE, after):
        return Closed(after + len(_HERMES_CLOSE))
    return Closed(at) if is_whole or not _HERMES_CLOSE.startswith(text[after:]) else None


def _list_close(close: _CloseAt) -> _CloseAt:
    """Another call of a list, or its end and what closes the list."""

    def one_more(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
        return _object(text, 0, is_whole, offered, after)

    def after(text: str, at: int, is_whole: bool) -> Closed | None:
        next_at = space_end(text, at)
        if text.startswith(",", next_at):
            return Closed(at, again=one_more, mark_end=next_at + 1)
        if text.startswith("]", next_at):
            return close(text, next_at + 1, is_whole)
        return Closed(at) if is_whole or next_at < len(text) else None

    return after


def _deepseek_block_close(text: str, is_whole: bool) -> Closed | None:
    after = space_end(text, 0)
    if text.startswith(_FENCE, after):
        return _deepseek_close_at(text, after + len(_FENCE), is_whole)
    return None if not is_whole and _FENCE.startswith(text[after:]) else Closed(0)


def _deepseek_close(text: str, is_whole: bool) -> Closed | None:
    return _deepseek_close_at(text, 0, is_whole)


def _deepseek_close_at(text: str, at: int, is_whole: bool) -> Closed | None:
    after = space_end(text, at)
    if not text.startswith(_DEEPSEEK_CALL_CLOSE, after):
        return None if not is_whole and _DEEPSEEK_CALL_CLOSE.startswith(text[after:]) else Closed(at)
    end = after + len(_DEEPSEEK_CALL_CLOSE)
    next_at = space_end(text, end)
    if text.startswith(_DEEPSEEK_CLOSE, next_at):
        return Closed(next_at + len(_DEEPSEEK_CLOSE))
    if text.startswith(_DEEPSEEK_CALL, next_at):
        return Closed(end, again=deepseek, mark_end=next_at)
    may_come = any(mark.startswith(text[next_at:]) for mark in (_DEEPSEEK_CLOSE, _DEEPSEEK_CALL))
    return None if not is_whole and may_come else Closed(end)
