"""Checks the generation that a client asks for, before anything else sees it."""

from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.options.checking import check_entries
from llorch.options.continuation import LastMessage, check_continued
from llorch.options.generation import CHAT, GENERATION, MAX_INPUT_BYTES, MAX_PARTS, MESSAGES, OUTPUT_CONSTRAINT
from llorch.options.sampling import SAMPLING
from orchestratord.convert.option_checks import check_options

ROLES = ("system", "user", "assistant", "tool")


def check_generate(work: task_pb2.GenerateWork) -> None:
    """Raises InvalidArgument that names the first field that can't be right. Lists are counted before they are read."""
    _check_counts(work.chat)
    _check_input(work)
    check_options("generate", GENERATION, work)
    check_options("generate.sampling", SAMPLING, work.sampling)
    check_options("generate.output_constraint", OUTPUT_CONSTRAINT, work.output_constraint)


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


def _check_input(work: task_pb2.GenerateWork) -> None:
    kind = work.WhichOneof("input")
    if kind is None:
        raise invalid_field("generate", "needs 'prompt' or 'chat'")
    if kind == "prompt":
        if not work.prompt:
            raise invalid_field("generate.prompt", "must not be empty")
        size = len(work.prompt.encode())
    else:
        if work.control_tokens:
            raise invalid_field("generate.control_tokens", "goes with a plain prompt; a chat's template writes its own")
        size = _check_messages(work.chat) + _size_of_tools(work.chat)
    if work.continue_last_message:
        check_continued(_last_message(work.chat))
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


def _last_message(chat: task_pb2.ChatInput) -> LastMessage | None:
    if not chat.messages:
        return None
    last = chat.messages[-1]
    text = "".join(part.text for part in last.content)
    return LastMessage(last.role, text, bool(last.tool_calls), chat.tool_choice not in ("", "auto", "none"))


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
            Reason.UNSUPPORTED_CONTENT,
            f"{field}.content: no engine here takes {kind} yet; send text",
            metadata={"field": f"{field}.content"},
        )
    return len(part.text.encode())
