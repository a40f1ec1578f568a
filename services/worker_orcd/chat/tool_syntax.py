"""Tool calls in the ways in which model families write them. Pure.

Each function is handed the text after the opening mark, as far as it came, and returns what it found there. It is
asked again with more text for as long as it answers None; with `is_whole` nothing follows, and it has to decide.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker_orcd.chat.call_json import NotJson, ParsedCall, Value, arguments_text, as_call, next_value, space_end
from worker_orcd.chat.chat_format import ToolStyle


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
_DEEPSEEK_CALL = re.compile(
    r"\s*<｜tool▁call▁begin｜>(?P<first>.*?)<｜tool▁sep｜>(?P<rest>.*?)<｜tool▁call▁end｜>", re.DOTALL
)
_DEEPSEEK_BLOCK = re.compile(r"\s*(?P<name>[^\s`]+)\s*```(?:json)?\s*(?P<arguments>.*?)\s*```\s*", re.DOTALL)


def hermes(text: str, is_whole: bool) -> Found | None:
    value = _object_at(text, is_whole)
    if not isinstance(value, Value):
        return value
    call = as_call(value.content)
    if call is None:
        return NO_CALL
    after = space_end(text, value.end)
    if text.startswith(_HERMES_CLOSE, after):
        return Found((call,), after + len(_HERMES_CLOSE))
    if is_whole or not _HERMES_CLOSE.startswith(text[after:]):
        return Found((call,), value.end)
    return None


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
    close = text.find(_DEEPSEEK_CLOSE)
    if close < 0 and not is_whole:
        return None
    body = text if close < 0 else text[:close]
    calls = _deepseek_calls(body)
    if not calls:
        return NO_CALL
    return Found(tuple(calls), len(body) + (len(_DEEPSEEK_CLOSE) if close >= 0 else 0))


SCANS: dict[ToolStyle, Scan] = {
    ToolStyle.HERMES: hermes,
    ToolStyle.LLAMA3: object_alone,
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


def _deepseek_calls(body: str) -> Sequence[ParsedCall]:
    """All of them, or none if one is not well-formed: what is not understood has to stay visible."""
    calls: list[ParsedCall] = []
    at = 0
    while space_end(body, at) < len(body):
        found = _DEEPSEEK_CALL.match(body, at)
        call = _deepseek_call(found.group("first"), found.group("rest")) if found else None
        if found is None or call is None:
            return ()
        calls.append(call)
        at = found.end()
    return calls


def _deepseek_call(first: str, rest: str) -> ParsedCall | None:
    """`function<sep>name` with a block of JSON (R1, V3), or `name<sep>{…}` (V3.1)."""
    block = _DEEPSEEK_BLOCK.fullmatch(rest)
    name, given = (block.group("name"), block.group("arguments")) if block else (first.strip(), rest)
    arguments = arguments_text(given)
    return ParsedCall(name, arguments) if name and arguments is not None else None
