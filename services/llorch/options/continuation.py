"""Which conversations have a last message that can be continued. Pure."""

from dataclasses import dataclass

from llorch.errors import InvalidArgument, invalid_field

FIELD = "generate.continue_last_message"


@dataclass(frozen=True, slots=True)
class LastMessage:
    """What decides it. `forces_call`: the answer has to be a tool call."""

    role: str
    text: str
    has_tool_calls: bool
    forces_call: bool


def check_continued(last: LastMessage | None) -> None:
    """None where there is no conversation."""
    if last is None:
        raise invalid_field(FIELD, "goes with a chat; what follows a plain prompt continues it anyway")
    if last.role != "assistant":
        raise invalid_field(FIELD, f"the last message has to be the assistant's, and is of the role '{last.role}'")
    if last.has_tool_calls:
        raise invalid_field(FIELD, "the last message has tool calls; their results come after it")
    if not last.text.strip():
        raise invalid_field(FIELD, "the last message has no text; leave it out, and a new one begins")
    if last.forces_call:
        raise invalid_field(
            FIELD, "a tool has to be called, which would be a message of its own; let it be auto or none"
        )


def not_shown() -> InvalidArgument:
    """The model's template leaves it out, or changes it by more than white space around it."""
    return invalid_field(
        FIELD,
        "the model's chat template does not show the last message as it was sent; leave out what it drops or rewrites, "
        "such as thoughts",
    )
