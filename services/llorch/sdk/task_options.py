"""Every option of a task, with the names and meanings of the contract.

None is the same as absent: the orchestrator's default. Where a list is taken, one entry may stand alone. Ranges and
defaults are those of the fields with the same names in the contract's `task.proto`; the orchestrator holds them.
"""

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict

Texts = str | Sequence[str]
"""A text alone is a list of one."""
JsonObject = str | Mapping[str, object]
"""JSON text, or a value that is encoded as JSON."""


class MediaPart(TypedDict, total=False):
    media_type: Required[str]
    data: Required[bytes]


class ContentPart(TypedDict, total=False):
    """One of them. Images and sounds can be given; the orchestrator refuses them until an engine takes them."""

    text: str
    image: MediaPart
    audio: MediaPart


class ToolCall(TypedDict, total=False):
    """A call that the model made in an earlier turn; `Choice.message()` brings them."""

    call_id: str
    name: Required[str]
    arguments: JsonObject


class Message(TypedDict, total=False):
    """`role` is "system", "user", "assistant", or "tool" for what a tool answered to the call `tool_call_id`."""

    role: Required[str]
    content: str | ContentPart | Sequence[str | ContentPart] | None
    tool_calls: Sequence[ToolCall] | None
    tool_call_id: str | None
    name: str | None


class Tool(TypedDict, total=False):
    """`parameters` is the JSON schema of its arguments."""

    name: Required[str]
    description: str
    parameters: JsonObject


class PlacementWishes(TypedDict, total=False):
    """Places are e.g. `garage`, `garage/3090`, or a pool; `device_mask` takes device ids."""

    pin: Texts | None
    prefer: Texts | None
    avoid: Texts | None
    device_mask: Texts | None
    fallback: bool | None


class SessionBudget(TypedDict, total=False):
    turns: int | None
    tokens: int | None
    busy_ms: int | None


class TaskOptions(TypedDict, total=False):
    """For tasks of every kind. `deadline_ms` is counted from now. `request_id` makes a repeated call the same task."""

    session_id: str | None
    priority: str | None
    deadline_ms: int | None
    placement: PlacementWishes | None
    deterministic: bool | None
    adapters: Texts | None
    request_id: str | None
    session_budget: SessionBudget | None


class SamplingOptions(TypedDict, total=False):
    """`logit_bias` is by token id."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    dry_penalty_last_n: int | None
    xtc_probability: float | None
    xtc_threshold: float | None
    mirostat: int | None
    mirostat_tau: float | None
    mirostat_eta: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None


class GenerateOptions(SamplingOptions, TaskOptions, total=False):
    """The options of a generation beside model and prompt.

    `system` goes before the prompt as a message of the role "system". `raw=True` gives a text prompt to the model
    as it is, without its chat template. `json_schema` or `grammar` (GBNF) constrains the output.
    """

    system: str | None
    raw: bool | None
    max_tokens: int | None
    stop: Texts | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    control_tokens: bool | None
    continue_last_message: bool | None
    n: int | None
    grammar: str | None
    json_schema: JsonObject | None
    top_logprobs: int | None
    tools: Sequence[Tool] | None
    tool_choice: str | None
    template_values: JsonObject | None


Prompt = str | Sequence[Message]
"""A text, which becomes the one message of a user; or messages like `{"role": "user", "content": "Hello"}`."""
