"""What a client says about a generation is checked before anything else sees it."""

from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.request_limits import (
    LOGIT_BIAS,
    MAX_CHOICES,
    MAX_INPUT_BYTES,
    MAX_LOGIT_BIASES,
    MAX_STOP_BYTES,
    MAX_STOPS,
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    SAMPLING_RANGES,
    Range,
)

ROLES = ("system", "user", "assistant", "tool")


def check_generate(work: task_pb2.GenerateWork) -> None:
    """Raises InvalidArgument that names the first field that can't be right."""
    _check_input(work)
    _check_optional(work, "max_tokens", Range(1, MAX_TOKENS), "generate")
    _check_optional(work, "n", Range(1, MAX_CHOICES), "generate")
    _check_optional(work, "top_logprobs", Range(0, MAX_TOP_LOGPROBS), "generate")
    _check_stops(work)
    _check_sampling(work.sampling)


def _check_input(work: task_pb2.GenerateWork) -> None:
    kind = work.WhichOneof("input")
    if kind is None:
        raise invalid_field("generate", "needs 'prompt' or 'chat'")
    if kind == "prompt":
        if not work.prompt:
            raise invalid_field("generate.prompt", "must not be empty")
        size = len(work.prompt.encode())
    else:
        size = _check_messages(work.chat) + _size_of_tools(work.chat)
    if size > MAX_INPUT_BYTES:
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"generate: the text has {size} bytes; at most {MAX_INPUT_BYTES} are taken; send less",
        )


def _check_messages(chat: task_pb2.ChatInput) -> int:
    """The size of all text, in bytes."""
    size = 0
    for index, message in enumerate(chat.messages):
        field = f"generate.chat.messages[{index}]"
        if message.role not in ROLES:
            raise invalid_field(f"{field}.role", f"'{message.role[:40]}' is none of: {', '.join(ROLES)}")
        for part in message.content:
            size += _check_part(part, field)
    if size == 0:
        raise invalid_field("generate.chat.messages", "at least one message needs text")
    return size


def _size_of_tools(chat: task_pb2.ChatInput) -> int:
    """In bytes, with the calls of earlier turns. What they mean, the worker reads."""
    calls = [call for message in chat.messages for call in message.tool_calls]
    return (
        sum(tool.ByteSize() for tool in chat.tools)
        + sum(call.ByteSize() for call in calls)
        + len(chat.template_values.encode())
    )


def _check_part(part: task_pb2.ContentPart, field: str) -> int:
    kind = part.WhichOneof("part")
    if kind is None:
        raise invalid_field(f"{field}.content", "a content part is empty; give it 'text'")
    if kind != "text":
        raise InvalidArgument(
            Reason.UNSUPPORTED_CONTENT, f"{field}.content: no engine here takes {kind} yet; send text"
        )
    return len(part.text.encode())


def _check_stops(work: task_pb2.GenerateWork) -> None:
    for name, count in (("stop", len(work.stop)), ("stop_token_ids", len(work.stop_token_ids))):
        if count > MAX_STOPS:
            raise invalid_field(f"generate.{name}", f"has {count} entries; at most {MAX_STOPS} are taken")
    for index, stop in enumerate(work.stop):
        if not 1 <= len(stop.encode()) <= MAX_STOP_BYTES:
            raise invalid_field(f"generate.stop[{index}]", f"has to have 1 to {MAX_STOP_BYTES} bytes")


def _check_sampling(sampling: task_pb2.Sampling) -> None:
    for name, allowed in SAMPLING_RANGES.items():
        _check_optional(sampling, name, allowed, "generate.sampling")
    if len(sampling.logit_bias) > MAX_LOGIT_BIASES:
        raise invalid_field(
            "generate.sampling.logit_bias", f"has too many entries; at most {MAX_LOGIT_BIASES} are taken"
        )
    for token_id, bias in sampling.logit_bias.items():
        if bias not in LOGIT_BIAS:
            raise invalid_field(f"generate.sampling.logit_bias[{token_id}]", f"is {bias}; it has to be {LOGIT_BIAS}")


def _check_optional(message: task_pb2.GenerateWork | task_pb2.Sampling, name: str, allowed: Range, path: str) -> None:
    if not message.HasField(name):  # type: ignore[arg-type]  # the stub wants literals; SAMPLING_RANGES names fields
        return
    value = getattr(message, name)
    if value not in allowed:
        raise invalid_field(f"{path}.{name}", f"is {value:.10g}; it has to be {allowed}")
