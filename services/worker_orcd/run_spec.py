"""What a run is asked to do, in the worker's own types.

Pure data. `convert` makes these from the contract; `validation` says which of them can be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llorch.options.generation import AnswerOptions
from llorch.options.sampling import Sampling


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ToolChoice(StrEnum):
    """Instead of one of these a request may name the tool that has to be called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Tool:
    """`parameters` is a JSON schema of its arguments; empty if it takes none."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of an earlier turn."""

    call_id: str
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """`tool_calls` are the assistant's; `tool_call_id` is the call that a message of role tool answers. `parts` are the
    texts that `content` was put together from, where a client gave more than one.
    """

    role: Role
    content: str
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    parts: tuple[str, ...] = ()


class ConstraintKind(StrEnum):
    GRAMMAR = "grammar"
    JSON_SCHEMA = "json_schema"


@dataclass(frozen=True, slots=True)
class OutputConstraint:
    """What the output has to look like: `text` is a GBNF grammar or a JSON schema."""

    kind: ConstraintKind
    text: str


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that an engine has to declare before it is honoured.

    `field` is its path in the contract, `capability` the name under which engines declare it.
    """

    field: str
    capability: str


@dataclass(frozen=True, slots=True)
class RunSpec(AnswerOptions):
    """One request as an engine gets it: `inputs` to embed, or `documents` to score by a `query`, or `messages` for the
    model's chat template, or else a plain `prompt`. With `inputs` or `documents` nothing is generated, and what follows
    here has no meaning.

    `remaining_ms` is the time from now in which the run has to be finished. `seed` is 64 bits wide. `template_values`
    are variables for the chat template. `call_key` is what the ids of tool calls depend on beside the choice and the
    number of the call. A `deterministic` run gives the same bytes as when it runs alone.
    """

    inputs: tuple[str, ...] = ()
    query: str = ""
    documents: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ToolChoice.AUTO
    template_values: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    choices: int = 1
    call_key: str = ""
    constraint: OutputConstraint | None = None
    deterministic: bool = False
    remaining_ms: int | None = None
    demands: tuple[Demand, ...] = ()

    @property
    def generates(self) -> bool:
        return not self.inputs and not self.documents

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a tool call."""
        return bool(self.tools) and self.tool_choice not in (ToolChoice.AUTO, ToolChoice.NONE)

    @property
    def offered_tools(self) -> tuple[Tool, ...]:
        """Those that the model's prompt lists."""
        return () if self.tool_choice == ToolChoice.NONE else self.tools
