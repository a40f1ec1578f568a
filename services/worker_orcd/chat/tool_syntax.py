"""Tool calls in the ways in which model families write them. Pure.

Each function is handed the text after the opening mark, as far as it came, and returns what it found there. It is
asked again with more text for as long as it answers None; with `is_whole` nothing follows, and it has to decide.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from worker_orcd.chat.call_json import NotJson, ParsedCall, Value, arguments_text, as_call, next_value, space_end
from worker_orcd.chat.chat_format import ToolStyle
from worker_orcd.chat.function_tags import OPENING, function_at, head_is_right
from worker_orcd.chat.python_call import begins_call, call_at, head_may_come, may_close


@dataclass(frozen=True, slots=True)
class Found:
    """`calls` take the text up to `end`. Without any, it is no tool call but text like other text."""

    calls: tuple[ParsedCall, ...] = ()
    end: int = 0


NO_CALL = Found()

Scan = Callable[[str, bool], Found | None]

_HERMES_CLOSE = "</tool_call>"
_MISTRAL_HEAD = re.compile(
    r"\s{0,8}([A-Za-z0-9_.-]{1,64})\s{0,8}(?:\[CALL_ID\][A-Za-z0-9_-]{0,64}\s{0,8})?(?:\[ARGS\]\s{0,8})?(?=\{)"
)
_MISTRAL_HEAD_CHARACTERS = 200
"""No head is longer."""
_DEEPSEEK_CLOSE = "<｜tool▁calls▁end｜>"
_DEEPSEEK_CALL, _DEEPSEEK_CALL_CLOSE = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_DEEPSEEK_HEAD = re.compile(
    r"<｜tool▁call▁begin｜>\s{0,8}([^\s<`]{1,64})\s{0,8}<｜tool▁sep｜>\s{0,8}"
    r"(?:([^\s`{]{1,64})\s{0,8}```(?:json)?\s{0,8})?(?=\{)"
)
_DEEPSEEK_HEAD_CHARACTERS = 250
_FENCE = "```"


def hermes(text: str, is_whole: bool) -> Found | None:
    begin = space_end(text, 0)
    if text.startswith(OPENING, begin) or (not is_whole and OPENING.startswith(text[begin:])):
        return _in_tags(text, begin, is_whole)
    value = _object_at(text, is_whole)
    if not isinstance(value, Value):
        return value
    call = as_call(value.content)
    return NO_CALL if call is None else _closed(call, text, value.end, is_whole)


def llama3(text: str, is_whole: bool) -> Found | None:
    if not begins_call(text):
        return None if not is_whole and text.strip() and head_may_come(text) else object_alone(text, is_whole)
    found = call_at(text)
    if found is None:
        return None if not is_whole and may_close(text) else NO_CALL
    name, given, end = found
    arguments = arguments_text(given)
    return NO_CALL if arguments is None else Found((ParsedCall(name, arguments),), end)


def object_alone(text: str, is_whole: bool) -> Found | None:
    value = _object_at(text, is_whole)
    if not isinstance(value, Value):
        return value
    call = as_call(value.content)
    return Found((call,), value.end) if call is not None else NO_CALL


def mistral(text: str, is_whole: bool) -> Found | None:
    begin = space_end(text, 0)
    if text.startswith("[", begin):
        return _mistral_list(text, is_whole)
    if text.startswith("{", begin):
        return object_alone(text, is_whole)
    head = _MISTRAL_HEAD.match(text)
    if head is None:
        may_come = not is_whole and "{" not in text and len(text) < _MISTRAL_HEAD_CHARACTERS
        return None if may_come else NO_CALL
    value = _object_at(text[head.end() :], is_whole)
    if not isinstance(value, Value):
        return value
    arguments = arguments_text(value.content)
    if arguments is None:
        return NO_CALL
    return Found((ParsedCall(head.group(1), arguments),), head.end() + value.end)


def deepseek(text: str, is_whole: bool) -> Found | None:
    """All calls, or none if one is not well-formed: what is not understood has to stay visible."""
    calls: list[ParsedCall] = []
    at = space_end(text, 0)
    while not text.startswith(_DEEPSEEK_CLOSE, at):
        if is_whole and calls and at == len(text):
            return Found(tuple(calls), at)
        if not is_whole and any(mark.startswith(text[at:]) for mark in (_DEEPSEEK_CALL, _DEEPSEEK_CLOSE)):
            return None
        found = _deepseek_call(text, at, is_whole)
        if not isinstance(found, Found) or not found.calls:
            return found
        calls += found.calls
        at = space_end(text, found.end)
    return Found(tuple(calls), at + len(_DEEPSEEK_CLOSE)) if calls else NO_CALL


SCANS: dict[ToolStyle, Scan] = {
    ToolStyle.HERMES: hermes,
    ToolStyle.LLAMA3: llama3,
    ToolStyle.MISTRAL: mistral,
    ToolStyle.DEEPSEEK: deepseek,
}


def _object_at(text: str, is_whole: bool) -> Value | Found | None:
    """The object that the text begins with; None if it is not complete, NO_CALL if it will never be one."""
    begin = space_end(text, 0)
    if begin == len(text):
        return NO_CALL if is_whole else None
    if text[begin] != "{":
        return NO_CALL
    try:
        value = next_value(text, begin)
    except NotJson:
        return NO_CALL
    return NO_CALL if value is None and is_whole else value


def _mistral_list(text: str, is_whole: bool) -> Found | None:
    try:
        value = next_value(text, 0)
    except NotJson:
        return NO_CALL
    if value is None:
        return NO_CALL if is_whole else None
    calls = [as_call(item) for item in value.content]
    known = tuple(call for call in calls if call is not None)
    return Found(known, value.end) if known and len(known) == len(calls) else NO_CALL


def _deepseek_call(text: str, begin: int, is_whole: bool) -> Found | None:
    """`function<sep>name` with a block of JSON (R1, V3), or `name<sep>{…}` (V3.1). What ends a call may stand within
    its arguments, so that these are read first.
    """
    head = _DEEPSEEK_HEAD.match(text, begin)
    if head is None:
        may_come = not is_whole and "{" not in text[begin:] and len(text) - begin < _DEEPSEEK_HEAD_CHARACTERS
        return None if may_come else NO_CALL
    value = _object_at(text[head.end() :], is_whole)
    if not isinstance(value, Value):
        return value
    arguments = arguments_text(value.content)
    at = space_end(text, head.end() + value.end)
    for mark in (_FENCE, _DEEPSEEK_CALL_CLOSE) if head.group(2) else (_DEEPSEEK_CALL_CLOSE,):
        if not text.startswith(mark, at):
            return None if not is_whole and mark.startswith(text[at:]) else NO_CALL
        at = space_end(text, at + len(mark))
    return NO_CALL if arguments is None else Found((ParsedCall(head.group(2) or head.group(1), arguments),), at)


def _in_tags(text: str, begin: int, is_whole: bool) -> Found | None:
    found = function_at(text, begin)
    if found is None:
        return None if not is_whole and head_is_right(text, begin) else NO_CALL
    name, texts, end = found
    return _closed(ParsedCall(name, "", texts), text, end, is_whole)


def _closed(call: ParsedCall, text: str, end: int, is_whole: bool) -> Found | None:
    """With the closing mark, where there is one."""
    after = space_end(text, end)
    if text.startswith(_HERMES_CLOSE, after):
        return Found((call,), after + len(_HERMES_CLOSE))
    if is_whole or not _HERMES_CLOSE.startswith(text[after:]):
        return Found((call,), end)
    return None
