"""One request for text: the task to run, and how its answer is to look."""

from dataclasses import dataclass, field
from typing import Protocol

from gatewayd.openai.fields import Json
from gatewayd.openai.task_fields import StreamOptions
from llama_orch.v2 import log_entry_pb2, task_event_pb2, task_pb2


@dataclass(slots=True)
class ChoiceText:
    """The whole output of one choice. A tool call's pieces are put together in order of their index."""

    text: str = ""
    reasoning: str = ""
    tool_calls: dict[int, log_entry_pb2.ToolCallDelta] = field(default_factory=dict)
    logprobs: list[log_entry_pb2.PositionLogprobs] = field(default_factory=list)

    def add(self, tokens: task_event_pb2.Tokens) -> None:
        self.text += tokens.text
        self.reasoning += tokens.reasoning
        self.logprobs += tokens.logprobs
        if tokens.HasField("tool_call"):
            piece = tokens.tool_call
            call = self.tool_calls.setdefault(piece.index, log_entry_pb2.ToolCallDelta(index=piece.index))
            call.call_id = call.call_id or piece.call_id
            call.name = call.name or piece.name
            call.arguments += piece.arguments


class Shape(Protocol):
    """How one of the two kinds of answer looks. Made for one answer; the `Json` is an entry of its `choices`."""

    @property
    def id_prefix(self) -> str: ...

    @property
    def whole_object(self) -> str: ...

    @property
    def piece_object(self) -> str: ...

    def opening(self, choice: int) -> Json | None:
        """What comes before a choice's first piece."""
        ...

    def piece(self, tokens: task_event_pb2.Tokens) -> Json: ...

    def closing(self, choice: int, finish_reason: str) -> Json: ...

    def whole(self, choice: int, said: ChoiceText, finish_reason: str) -> Json: ...


@dataclass(frozen=True, slots=True)
class Generation:
    task: task_pb2.TaskSpec
    shape: Shape
    stream: StreamOptions
