"""The events of a task's stream, in the order in which they come.

    Started, then Placed once per attempt, Tokens with Metrics and Narration between them, and one End or Failed.

    async for event in client.generate("smollm2", "Name three colours."):
        match event:
            case Tokens(text=text):
                print(text, end="")
            case End(finish_reason=reason):
                print(f"[{reason}]")

`cursor` is where to go on after an event, for `stream(task_id, after=cursor)`. Times are in milliseconds.
"""

from dataclasses import dataclass
from enum import StrEnum

from llama_orch.v2 import engine_pb2
from llorch.errors import Reason


class FinishReason(StrEnum):
    """Why an answer ended; UNKNOWN is one that this release of the SDK does not know."""

    UNKNOWN = "unknown"
    EOS = "eos"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Always first. `queue_position` is how many tasks wait before this one."""

    task_id: str
    cursor: str
    model: str
    queue_position: int
    predicted_start_ms: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class PlacedDevice:
    """`kind` is "cuda", "cpu" or "simulated"."""

    device_id: str
    name: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An attempt begins, or an earlier one goes on, since its worker answers again: where, and whether it is the CPU or
    the simulation that answers. `attempt` is from 1. `lost` is why the one before was lost, e.g. "exit" of its worker;
    None where none was.
    """

    task_id: str
    cursor: str
    attempt: int
    worker_id: str
    node_id: str
    devices: tuple[PlacedDevice, ...]
    engine: str
    engine_version: str
    simulated: bool
    cpu: bool
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; the `arguments` of pieces with the same index concatenate to JSON."""

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """`logprob` is a natural logarithm. `raw` has the bytes of the token, of which `text` may be a part only."""

    token_id: int
    text: str
    logprob: float
    raw: bytes


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """`top` has the most likely alternatives, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Output. `index` is that of its first token in the output of its choice, `count` how many tokens it has.

    `logprobs` has one entry per token where `top_logprobs` asked for them.
    """

    task_id: str
    cursor: str
    index: int
    count: int
    choice: int
    text: str
    reasoning: str
    tool_call: ToolCallDelta | None
    token_ids: tuple[int, ...]
    logprobs: tuple[PositionLogprobs, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How it goes; `on_time_probability` is 0 to 1, None without a deadline. `kv_warm_tokens` of the prompt were found
    in the KV cache.
    """

    task_id: str
    cursor: str
    queue_depth: int
    on_time_probability: float | None
    tokens_per_second: float
    kv_warm_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Narration:
    """A sentence for people."""

    task_id: str
    cursor: str
    text: str


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """How one choice ended. `stop_string` is the one that ended it, or empty."""

    choice: int
    finish_reason: FinishReason
    tokens_out: int
    stop_string: str


@dataclass(frozen=True, slots=True)
class DeterminismReceipt:
    """What the bytes of an answer depend on beside the request, and what they were.

    `token_digest` is a SHA-256 in hexadecimal over the ids of all tokens.
    """

    fingerprint: engine_pb2.EngineFingerprint
    seed: int
    token_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The task ended with an answer, or was cancelled. `receipt` is there for deterministic tasks, `first_token_ms`
    where there was a token.
    """

    task_id: str
    cursor: str
    choices: tuple[ChoiceEnd, ...]
    tokens_in: int
    tokens_out: int
    cached_tokens: int
    queue_ms: int
    first_token_ms: int | None
    decode_time_ms: int
    receipt: DeterminismReceipt | None

    @property
    def finish_reasons(self) -> tuple[FinishReason, ...]:
        """One per choice."""
        return tuple(choice.finish_reason for choice in self.choices)

    @property
    def finish_reason(self) -> FinishReason:
        """Of the first choice."""
        return self.choices[0].finish_reason if self.choices else FinishReason.UNKNOWN

    @property
    def tokens_per_second(self) -> float | None:
        """Speed after the first token of each choice, all together; None where there was nothing to measure."""
        after_the_first = self.tokens_out - len(self.choices)
        return after_the_first * 1000 / self.decode_time_ms if self.decode_time_ms and after_the_first > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The task ended with an error; `retryable` says that the same request may succeed later.

    `field` is the path in the contract of the field that was refused; empty if the error is about none.
    """

    task_id: str
    cursor: str
    reason: Reason
    message: str
    retryable: bool
    retry_after_ms: int | None
    field: str = ""


Event = Started | Placed | Tokens | Metrics | Narration | End | Failed
