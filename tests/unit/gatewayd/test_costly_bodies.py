"""What one body can cost, whatever its shape: it is counted before it is read, and no step holds the interpreter."""

import contextlib
import sys
import time
from collections.abc import Callable

import pytest
from google.protobuf import json_format

from gatewayd.app import orchestrator_services
from gatewayd.json_size import MAX_VALUES, check_values
from gatewayd.long_strings import read_long_strings_fast
from gatewayd.openai.chat_request import read_chat
from gatewayd.route_table import RouteTable
from gatewayd.routes import read_routes
from gatewayd.transcode import build_request
from llorch.errors import InvalidArgument, Reason

_BYTES = 4 * 2**20 - 200
_STEP_S = 0.05
_CHAT = b'{"model":"m","messages":[{"role":"user","content":"' + b"a,{[" * (_BYTES // 4) + b'"}]}'
_TASK = b'{"model":"m","generate":%b}'


def _messages(each: bytes, count: int) -> bytes:
    return _TASK % (b'{"chat":{"messages":[' + b",".join([each] * count) + b"]}}")


TOO_MANY = {
    "messages": _messages(b'{"role":"user","content":[{"text":"a"}]}', 90_000),
    "empty messages": _messages(b"{}", 1_300_000),
    "objects": b'{"x":[' + b",".join([b"{}"] * (_BYTES // 3)) + b"]}",
    "strings": b'{"x":[' + b",".join([b'"a,"'] * (_BYTES // 5)) + b"]}",
    "depth": b"[" * _BYTES,
    "behind a long string": b'{"a":"' + b'\\",' * 100_000 + b'","x":[' + b",".join([b"1"] * (MAX_VALUES + 1)) + b"]}",
}
ALLOWED = {
    "a prompt of commas": _TASK % (b'{"prompt":"' + b"a,{[" * (_BYTES // 4) + b'"}'),
    "a prompt of escapes": _TASK % (b'{"prompt":"' + b'\\"' * (_BYTES // 2) + b'"}'),
    "a string without an end": b'{"a":"' + b'\\",' * (_BYTES // 3),
    "a backslash at the end": b'{"a":"' + b"," * (_BYTES - 10) + b"\\",
    "a long number": b'{"a":' + b"9" * _BYTES + b"}",
    "long numbers": b'{"a":[' + b",".join([b"9" * 4000] * 1000) + b"]}",
    "long fractions": b'{"a":[' + b",".join([b"0." + b"9" * 4000] * 1000) + b"]}",
    "many names": b"{" + b",".join(b'"k%d":1' % number for number in range(3000)) + b"}",
    "messages": _messages(b'{"role":"user","content":[{"text":"a,b"}]}', 200),
}


def _read(text: bytes) -> None:
    route, variables = RouteTable(read_routes(orchestrator_services())).find("POST", "/v2/tasks")
    check_values(text)
    build_request(route, variables, b"", text)


def _read_chat(text: bytes) -> None:
    check_values(text)
    read_chat(text)


@pytest.fixture
def long_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_UNPAIRED_SURROGATE_PATTERN"
    monkeypatch.setattr(json_format, name, getattr(json_format, name))
    read_long_strings_fast()


@pytest.mark.parametrize("text", TOO_MANY.values(), ids=TOO_MANY)
def test_a_body_of_too_many_values_is_refused_unread(text: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_values(text)
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED)
def test_separators_within_strings_are_no_values(text: bytes) -> None:
    check_values(text)


def test_values_are_counted_across_the_pieces_in_which_a_body_is_looked_through() -> None:
    for ahead in range(65_520, 65_550):
        padding = b'"' + b"x" * ahead + b'"'
        check_values(b"[" + padding + b",1" * (MAX_VALUES - 1) + b"]")
        with pytest.raises(InvalidArgument):
            check_values(b"[" + padding + b",1" * MAX_VALUES + b"]")


@pytest.mark.usefixtures("long_strings")
@pytest.mark.parametrize("read", [_read, _read_chat])
def test_no_step_in_reading_a_body_holds_up_the_others(read: Callable[[bytes], None]) -> None:
    for name, text in {**TOO_MANY, **ALLOWED, "chat": _CHAT}.items():
        assert _longest_step(read, text) < _STEP_S, name


def _longest_step(read: Callable[[bytes], None], text: bytes) -> float:
    """Processor time between two calls or returns: within a single step, no other thread has its turn."""
    longest = 0.0
    last = time.thread_time()

    def look(*_: object) -> None:
        nonlocal longest, last
        now = time.thread_time()
        longest = max(longest, now - last)
        last = time.thread_time()

    sys.setprofile(look)
    try:
        with contextlib.suppress(InvalidArgument):
            read(text)
    finally:
        sys.setprofile(None)
    return longest
