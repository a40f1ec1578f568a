"""Why the output of a choice ended. Pure."""

from enum import StrEnum


class FinishReason(StrEnum):
    """The values stand in records of finished tasks: they never change."""

    EOS = "EOS"
    STOP_STRING = "STOP_STRING"
    LENGTH = "LENGTH"
    CONTEXT_FULL = "CONTEXT_FULL"
    TOOL_CALLS = "TOOL_CALLS"
    CANCELLED = "CANCELLED"
    DEADLINE = "DEADLINE"
