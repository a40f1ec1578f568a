"""Bodies and queries that can't be right, refused with the place and the remedy; no server involved."""

import contextlib
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.json_codec import MAX_DEPTH, decode_json
from gatewayd.message_shape import check_message
from gatewayd.query import read_query
from llama_orch.v2 import app_pb2, placement_service_pb2, task_pb2, task_service_pb2
from llorch.errors import InvalidArgument, Reason

SPEC = task_pb2.TaskSpec.DESCRIPTOR


def refusal(value: Any, message: Descriptor = SPEC) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        check_message(value, message)
    return caught.value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b'{"a": ', "line 1, column 7"),
        (b"{} {}", "line 1, column 4"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": "\xff"}', "byte 7"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' twice"),
        (b'{"\\ud800": 1}', "is no text"),
        (b"9" * 5000, "too many digits"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "levels deep"),
        (b"[" * 1_000_000, "levels deep"),
        (b'{"a":' * 100_000, "levels deep"),
    ],
)
def test_broken_json_is_refused_with_the_place(text: bytes, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        decode_json(text)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


def test_json_as_deep_as_allowed_is_read() -> None:
    decode_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        decode_json(text)


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ({"modle": "m"}, "modle", "did you mean model?"),
        ({"generate": {"promt": "x"}}, "generate.promt", "did you mean prompt?"),
        ({"generate": {"sampling": {"zzz": 1}}}, "generate.sampling.zzz", "known are temperature"),
        ({"generate": {"chat": {"messages": [{}, {"rol": "user"}]}}}, "generate.chat.messages[1].rol", "role"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_right_one(value: Any, field: str, says: str) -> None:
    error = refusal(value)
    assert error.reason is Reason.UNKNOWN_FIELD
    assert error.violations[0].field == field
    assert says in error.message


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ("text", "the body", 'an object is needed here, not "text"'),
        (None, "the body", "not null"),
        ({"model": 1}, "model", "a string is needed here, not 1"),
        ({"deterministic": "yes"}, "deterministic", "true or false"),
        ({"deterministic": 1}, "deterministic", "true or false"),
        ({"deadline_ms": "soon"}, "deadline_ms", "a whole number"),
        ({"deadline_ms": 1.5}, "deadline_ms", "a whole number"),
        ({"deadline_ms": True}, "deadline_ms", "a whole number"),
        ({"adapters": "a"}, "adapters", "a list of strings"),
        ({"adapters": [None]}, "adapters[0]", "a string is needed here, not null"),
        ({"generate": []}, "generate", "an object is needed here, not a list"),
        ({"generate": {"sampling": {"temperature": "warm"}}}, "generate.sampling.temperature", "a number"),
        ({"generate": {"sampling": {"logit_bias": {"x": 1}}}}, "generate.sampling.logit_bias['x']", "whole"),
    ],
)
def test_a_wrong_type_names_the_field(value: Any, field: str, says: str) -> None:
    error = refusal(value)
    assert error.reason is Reason.MALFORMED_REQUEST
    assert error.violations[0].field == field
    assert says in error.message


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ({"generate": {"max_tokens": -1}}, "generate.max_tokens", "can't be negative (got -1)"),
        ({"generate": {"max_tokens": 2**32}}, "generate.max_tokens", "from 0 to 4294967295"),
        ({"generate": {"max_tokens": 10**300}}, "generate.max_tokens", "a huge number"),
        ({"generate": {"sampling": {"temperature": "NaN"}}}, "generate.sampling.temperature", "finite"),
        ({"generate": {"sampling": {"temperature": 1e999}}}, "generate.sampling.temperature", "finite"),
        ({"generate": {"sampling": {"temperature": 1e39}}}, "generate.sampling.temperature", "fits the field"),
        ({"generate": {"sampling": {"temperature": 10**400}}}, "generate.sampling.temperature", "finite"),
        ({"generate": {"prompt": "\ud800"}}, "generate.prompt", "surrogate"),
        ({"generate": {"prompt": "a", "chat": {}}}, "generate.chat", "together with generate.prompt"),
        ({"session_id": "a", "sessionId": "b"}, "sessionId", "together with session_id"),
        (
            {"generate": {"chat": {"messages": [{"content": [{"image": {"data": "~"}}]}]}}},
            "generate.chat.messages[0].content[0].image.data",
            "base64",
        ),
    ],
)
def test_a_value_out_of_range_names_the_field(value: Any, field: str, says: str) -> None:
    error = refusal(value)
    assert error.reason is Reason.INVALID_FIELD
    assert error.violations[0].field == field
    assert says in error.message


def test_a_timestamp_has_its_own_form() -> None:
    check_message({"create_time": "2026-01-02T03:04:05Z"}, app_pb2.App.DESCRIPTOR)
    wrongs: tuple[Any, ...] = ("yesterday", 5, {}, True)
    for wrong in wrongs:
        assert refusal({"create_time": wrong}, app_pb2.App.DESCRIPTOR).violations[0].field == "create_time"


LIST = task_service_pb2.ListTasksRequest.DESCRIPTOR
EXPLAIN = placement_service_pb2.ExplainPlacementRequest.DESCRIPTOR


def test_a_query_fills_nested_and_repeated_fields() -> None:
    found = read_query(b"model=a%20b&placement.pin=x&placement.pin=y&placement.fallback=true", EXPLAIN, ())
    assert found == {"model": "a b", "placement": {"pin": ["x", "y"], "fallback": True}}


@pytest.mark.parametrize(
    ("query", "message", "taken", "says"),
    [
        (b"page_sise=1", LIST, (), "did you mean page_size?"),
        (b"placement=1", EXPLAIN, (), "placement.pin"),
        (b"placement.pin.x=1", EXPLAIN, (), "placement.pin.x is no field"),
        (b"placement.fallback=maybe", EXPLAIN, (), "true or false"),
        (b"page_size=1&page_size=2", LIST, (), "more than once"),
        (b"page_token=%ff", LIST, (), "UTF-8"),
        (b"&".join([b"page_token=a"] * 101), LIST, (), "100 parameters"),
        (b"placement.pin=a", EXPLAIN, ("placement",), "can't"),
        (b"model=a", EXPLAIN, ("model",), "can't"),
    ],
)
def test_a_query_that_can_not_be_right_is_refused(
    query: bytes, message: Descriptor, taken: tuple[str, ...], says: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_query(query, message, taken)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("query", "says"), [(b"page_size=many", "page_size: a whole number"), (b"state=QUEUED", "TASK_STATE_QUEUED?")]
)
def test_a_wrong_value_in_a_query_names_the_field(query: bytes, says: str) -> None:
    assert says in refusal(read_query(query, LIST, ()), LIST).message


def test_an_enum_may_be_given_by_number() -> None:
    check_message(read_query(b"state=1", LIST, ()), LIST)
    assert "99 is not one of its values" in refusal(read_query(b"state=99", LIST, ()), LIST).message
