"""What a request costs the orchestrator's loop, whatever it holds: one of the largest takes no longer than 50 ms."""

import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from google.protobuf.message import DecodeError

from llama_orch.v2 import model_pb2, task_pb2
from llama_orch.v2 import task_service_pb2 as pb2
from llama_orch.v2.catalog_service_pb2 import RegisterModelRequest
from llorch.errors import InvalidArgument, Reason
from llorch.options.generation import (
    MAX_INPUT_BYTES,
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_REQUEST_BYTES,
    MAX_REQUEST_FIELDS,
    MAX_TOOLS,
)
from llorch.rpc.request_limit import RequestLimit
from orchestratord.api.task_access import digest_of
from orchestratord.convert.tasks import to_request
from orchestratord.core.facts.work import Work

MOST_MS = 50
LIMIT = RequestLimit(max_bytes=MAX_REQUEST_BYTES, max_fields=MAX_REQUEST_FIELDS)
FULL = MAX_INPUT_BYTES


def field(number: int, content: bytes) -> bytes:
    """One with a length, as the wire has it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def generate(content: bytes) -> bytes:
    return field(1, field(1, content) + field(4, b"m"))


def chat(content: bytes) -> bytes:
    return generate(field(2, content))


PART = field(2, field(1, b"a" * 40))
MESSAGE = field(1, field(1, b"user") + PART)

HOSTILE: dict[str, bytes] = {
    "90,000 messages": chat(MESSAGE * 90_000),
    "90,000 parts of one message": chat(field(1, field(1, b"user") + PART * 90_000)),
    "empty messages": chat(field(1, b"") * (FULL // 2)),
    "empty parts": chat(field(1, field(1, b"user") + field(2, b"") * (FULL // 2))),
    "empty tool calls": chat(field(1, field(1, b"user") + field(3, b"") * (FULL // 2))),
    "empty tools": chat(MESSAGE + field(2, b"") * (FULL // 2)),
    "100,000 stop strings": generate(field(1, b"Hi") + field(4, b"a" * 30) * 100_000),
    "empty stop strings": generate(field(1, b"Hi") + field(4, b"") * (FULL // 2)),
    "stop tokens, packed": generate(field(1, b"Hi") + field(5, b"\x01" * FULL)),
    "stop tokens, each for itself": generate(field(1, b"Hi") + b"\x28\x01" * (FULL // 2)),
    "biases": generate(
        field(1, b"Hi") + field(8, b"".join(field(19, b"\x08" + varint(each)) for each in range(FULL // 7)))
    ),
    "empty biases": generate(field(1, b"Hi") + field(8, field(19, b"") * (FULL // 3))),
    "a schema": generate(field(1, b"Hi") + field(9, field(2, b'{"a":' * (FULL // 5)))),
    "inputs": field(1, field(2, field(1, b"") * (FULL // 2)) + field(4, b"m")),
    "documents": field(1, field(3, field(1, b"q") + field(2, b"") * (FULL // 2)) + field(4, b"m")),
    "adapters": field(1, field(1, field(1, b"Hi")) + field(4, b"m") + field(11, b"") * (FULL // 2)),
    "devices to run on": field(1, field(1, field(1, b"Hi")) + field(4, b"m") + field(9, field(1, b"") * (FULL // 2))),
    "unknown fields": field(1, b"\xa0\x06\x01" * (FULL // 3)),
    "groups that are unknown": field(1, b"\xa3\x06\xa4\x06" * (FULL // 4)),
    "works that replace each other": field(1, (field(1, b"") + field(2, b"")) * (FULL // 4)),
    "a number without an end": field(1, b"\xff" * FULL),
    "a megabyte too much": generate(field(1, b"a" * (FULL + 1024 * 1024))),
}


def chat_of(*messages: task_pb2.ChatMessage, tools: int = 0) -> bytes:
    tool = task_pb2.ToolDefinition(name="look", parameters="{}")
    work = task_pb2.GenerateWork(chat=task_pb2.ChatInput(messages=messages, tools=[tool] * tools))
    return pb2.GenerateRequest(task=task_pb2.TaskSpec(model="m", generate=work)).SerializeToString()


def message_of(parts: int, size: int, calls: int = 0) -> task_pb2.ChatMessage:
    return task_pb2.ChatMessage(
        role="user",
        name="ann",
        tool_call_id="c",
        content=[task_pb2.ContentPart(text="a" * size)] * parts,
        tool_calls=[task_pb2.ToolCall(call_id="c", name="look", arguments="a" * size)] * calls,
    )


LARGEST: dict[str, bytes] = {
    "a prompt": generate(field(1, b"a" * FULL)),
    "a prompt of other letters": generate(field(1, "ä".encode() * (FULL // 2))),
    "messages": chat_of(*[message_of(1, FULL // MAX_MESSAGES)] * MAX_MESSAGES),
    "parts": chat_of(*[message_of(2, FULL // MAX_PARTS)] * MAX_MESSAGES),
    "parts of one message": chat_of(message_of(MAX_PARTS, FULL // MAX_PARTS)),
    "tool calls": chat_of(*[message_of(1, FULL // MAX_PARTS - 20, calls=1)] * MAX_MESSAGES, tools=MAX_TOOLS),
}


def admit(raw: bytes) -> None:
    """All that the servicer does before it asks the brain."""
    LIMIT.check(raw, pb2.GenerateRequest.DESCRIPTOR)
    spec = pb2.GenerateRequest.FromString(raw).task
    kind = spec.WhichOneof("work")
    digest = digest_of(spec, durable=True)
    to_request(
        spec,
        work=Work(kind) if kind else Work.GENERATE,
        app="",
        task_id="t",
        correlation_id="c",
        durable=True,
        content_digest=digest,
        seed=1,
    )


def ms_of(action: Callable[[], None]) -> float:
    """Processor time of the quickest of three: what else the machine does counts for nothing."""
    took = []
    for _ in range(3):
        began = time.thread_time()
        action()
        took.append(time.thread_time() - began)
    return min(took) * 1000


@pytest.mark.parametrize("shape", HOSTILE)
def test_what_is_too_much_is_refused_before_it_costs(shape: str) -> None:
    raw = HOSTILE[shape]

    def refused() -> None:
        with pytest.raises((InvalidArgument, DecodeError)) as error:
            admit(raw)
        if isinstance(error.value, InvalidArgument):
            assert error.value.reason in (
                Reason.REQUEST_TOO_LARGE,
                Reason.INVALID_FIELD,
                Reason.UNSUPPORTED_OPTION,
            )

    assert ms_of(refused) < MOST_MS


@pytest.mark.parametrize("shape", LARGEST)
def test_the_largest_that_is_taken_costs_no_more(shape: str) -> None:
    assert ms_of(lambda: admit(LARGEST[shape])) < MOST_MS


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (chat_of(*[message_of(1, 1)] * (MAX_MESSAGES + 1)), f"has {MAX_MESSAGES + 1} entries; it has to have 1 to"),
        (chat_of(message_of(MAX_PARTS, 1, calls=1)), f"have {MAX_PARTS + 1} parts and tool calls together; at most"),
        (chat_of(message_of(1, 1), tools=MAX_TOOLS + 1), f"has {MAX_TOOLS + 1} entries; it has to have 0 to"),
        (chat(MESSAGE * 30_000), f"more than {MAX_REQUEST_FIELDS} entries in its lists"),
        (generate(field(1, b"Hi") + field(5, b"\x01" * (2 * MAX_REQUEST_FIELDS + 1))), "more than"),
        (generate(field(1, b"Hi") + field(5, b"\x81\x01" * (MAX_REQUEST_FIELDS + 1))), "more than"),
        (generate(field(1, b"Hi") + field(5, b"\x01" * (2 * MAX_REQUEST_FIELDS + 1)) + b"\xff"), "more than"),
        (generate(field(1, b"a" * MAX_REQUEST_BYTES)), f"at most {MAX_REQUEST_BYTES} are taken"),
    ],
    ids=["messages", "parts", "tools", "fields", "packed", "packed, of two bytes", "packed, and cut", "bytes"],
)
def test_a_refusal_names_the_limit(raw: bytes, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what):
        admit(raw)


@pytest.mark.parametrize(("entries", "is_taken"), [(MAX_REQUEST_FIELDS - 3, True), (MAX_REQUEST_FIELDS - 2, False)])
def test_packed_numbers_of_a_fixed_size_are_counted_each(entries: int, is_taken: bool) -> None:
    """Beside them there are three fields: the model, its name and the list."""
    spec = model_pb2.ModelSpec(name="a", split_shares=[1.0] * entries)
    raw = RegisterModelRequest(model=spec).SerializeToString()
    refusal = pytest.raises(InvalidArgument, match=f"more than {MAX_REQUEST_FIELDS} entries in its lists")
    with nullcontext() if is_taken else refusal:
        LIMIT.check(raw, RegisterModelRequest.DESCRIPTOR)
