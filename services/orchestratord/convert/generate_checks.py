"""Checks the generation that a client asks for, before anything else sees it."""

from dataclasses import dataclass

from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.options.checking import check_entries
from llorch.options.continuation import LastMessage, check_continued
from llorch.options.generation import CHAT, GENERATION, MAX_INPUT_BYTES, MAX_PARTS, MESSAGES, OUTPUT_CONSTRAINT
from llorch.options.sampling import SAMPLING
from orchestratord.convert.option_checks import check_options

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class _Size:
    """Of texts. `bytes` is bounded, tokens are guessed from `characters`."""

    bytes: int
    characters: int


def check_generate(work: task_pb2.GenerateWork) -> int:
    """The characters that the model reads. Raises InvalidArgument that names the first field that can't be right.

    Lists are counted before they are read, and texts are read once: that is most of what a large request costs.
    """
    _check_counts(work.chat)
    characters = _check_input(work)
    check_options("generate", GENERATION, work)
    check_options("generate.sampling", SAMPLING, work.sampling)
    check_options("generate.output_constraint", OUTPUT_CONSTRAINT, work.output_constraint)
    return characters


def _check_counts(chat: task_pb2.ChatInput) -> None:
    if chat.messages:
        check_entries("generate.chat.messages", MESSAGES, len(chat.messages))
    check_entries("generate.chat.tools", CHAT["tools"], len(chat.tools))
    parts = sum(len(message.content) + len(message.tool_calls) for message in chat.messages)
    if parts > MAX_PARTS:
        raise invalid_field(
            "generate.chat.messages",
            f"have {parts} parts and tool calls together; at most {MAX_PARTS} are taken",
        )


def _check_input(work: task_pb2.GenerateWork) -> int:
    """The characters of all text."""
    kind = work.WhichOneof("input")
    if kind is None:
        raise invalid_field("generate", "needs 'prompt' or 'chat'")
    if kind == "prompt":
        prompt = work.prompt
        if not prompt:
            raise invalid_field("generate.prompt", "must not be empty")
        size, characters = len(prompt.encode()), len(prompt)
    else:
        if work.control_tokens:
            raise invalid_field("generate.control_tokens", "goes with a plain prompt; a chat's template writes its own")
        in_messages, in_tools = _check_messages(work.chat), _size_of_tools(work.chat)
        size = in_messages.bytes + in_tools.bytes + len(work.chat.template_values.encode())
        characters = in_messages.characters + in_tools.characters
    if work.continue_last_message:
        check_continued(_last_message(work.chat))
    if size > MAX_INPUT_BYTES:
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"generate: the text has {size} bytes; at most {MAX_INPUT_BYTES} are taken; send less",
        )
    return characters


def _check_messages(chat: task_pb2.ChatInput) -> _Size:
    """All text of all parts."""
    size = characters = 0
    for index, message in enumerate(chat.messages):
        if message.role not in ROLES:
            raise invalid_field(
                f"generate.chat.messages[{index}].role", f"'{message.role[:40]}' is none of: {', '.join(ROLES)}"
            )
        for part in message.content:
            if not part.HasField("text"):
                raise _without_text(part, f"generate.chat.messages[{index}].content")
            text = part.text
            size += len(text.encode())
            characters += len(text)
    if size == 0:
        raise invalid_field("generate.chat.messages", "at least one message needs text")
    return _Size(size, characters)


def _without_text(part: task_pb2.ContentPart, field: str) -> InvalidArgument:
    kind = part.WhichOneof("part")
    if kind is None:
        return invalid_field(field, "a content part is empty; give it 'text'")
    return InvalidArgument(
        Reason.UNSUPPORTED_CONTENT,
        f"{field}: no engine here takes {kind} yet; send text",
        metadata={"field": field},
    )


def _size_of_tools(chat: task_pb2.ChatInput) -> _Size:
    """What the tools are, and the calls of earlier turns. What they mean, the worker reads."""
    calls = [call for message in chat.messages for call in message.tool_calls]
    return _Size(
        bytes=sum(tool.ByteSize() for tool in chat.tools) + sum(call.ByteSize() for call in calls),
        characters=sum(len(tool.description) + len(tool.parameters) for tool in chat.tools)
        + sum(len(call.arguments) for call in calls),
    )


def _last_message(chat: task_pb2.ChatInput) -> LastMessage | None:
    if not chat.messages:
        return None
    last = chat.messages[-1]
    text = "".join(part.text for part in last.content)
    return LastMessage(last.role, text, bool(last.tool_calls), chat.tool_choice not in ("", "auto", "none"))
