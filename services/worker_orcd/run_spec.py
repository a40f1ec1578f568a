"""What a run is asked to do, in the worker's own words.

Pure data. `convert` makes these from the contract; `validation` says which of them can be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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
    """`tool_calls` are the assistant's; `tool_call_id` is the call that a message of role tool answers."""

    role: Role
    content: str
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is picked. The defaults are the contract's.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0 and `typical_p` 1 switch their stage off.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def uses_penalties(self) -> bool:
        penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        return self.repeat_last_n > 0 and penalties != (1.0, 0.0, 0.0)

    @property
    def uses_dry(self) -> bool:
        return self.dry_multiplier > 0 and self.dry_penalty_last_n > 0

    @property
    def uses_xtc(self) -> bool:
        return self.xtc_probability > 0 and not self.mirostat and self.temperature > 0

    @property
    def uses_mirostat(self) -> bool:
        return self.mirostat > 0 and self.temperature > 0


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
class RunSpec:
    """One request as an engine gets it: `inputs` to embed, or `messages` for the model's chat template, or else a
    plain `prompt`. With `inputs` nothing is generated, and what follows here has no meaning.

    `max_tokens` None means as many as the context holds. `remaining_ms` is the time from now in which the run
    has to be finished. `seed` is 64 bits wide. `template_values` are variables for the chat template. A
    `deterministic` run gives the same bytes as when it runs alone. `top_logprobs` is how many alternatives are
    told per token; None: no log probabilities at all.
    """

    inputs: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ToolChoice.AUTO
    template_values: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    choices: int = 1
    constraint: OutputConstraint | None = None
    top_logprobs: int | None = None
    deterministic: bool = False
    remaining_ms: int | None = None
    demands: tuple[Demand, ...] = ()

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a tool call."""
        return bool(self.tools) and self.tool_choice not in (ToolChoice.AUTO, ToolChoice.NONE)

    @property
    def offered_tools(self) -> tuple[Tool, ...]:
        """Those that the model hears of."""
        return () if self.tool_choice == ToolChoice.NONE else self.tools
