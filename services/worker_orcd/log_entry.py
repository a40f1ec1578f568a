"""The entries of a run's output log, and how a run ends.

Pure data. An entry is final: it exists only once its text can't change any more, and every token that was
sampled, but for the one that ends the answer, is in exactly one entry. Its `seq` is its place in the log.
"""

from dataclasses import dataclass
from typing import NamedTuple

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from worker_orcd.engine_info import Fingerprint


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next piece of tool call `index`; `call_id` and `name` come with the first piece only."""

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """`raw` are the bytes of the token, which may be a part of a character."""

    token_id: int
    logprob: float
    raw: bytes


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The token that was chosen, and the most likely ones, best first. All from the model alone, before any
    sampling option or constraint.
    """

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


class LogEntry(NamedTuple):
    """At most one of `reasoning` and `tool_call` is set; `text` is the content where neither is.

    `logprobs` has one position per token id, if any. `sampler_state` is what a resumed run can't rebuild from the ids.
    One is made per token: a tuple takes a third of the time that a dataclass does.
    """

    choice: int
    token_ids: tuple[int, ...]
    text: str = ""
    reasoning: str | None = None
    tool_call: ToolCallDelta | None = None
    sampler_state: bytes = b""
    logprobs: tuple[PositionLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """`tokens_out` counts this attempt only; `stop_string` is the one that ended the choice, else empty."""

    choice: int
    finish_reason: FinishReason
    tokens_out: int
    stop_string: str = ""


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run ended without an answer. `field` is the path in the contract of the field that was refused; empty if
    the failure is about none.
    """

    reason: Reason
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the bytes of a deterministic run depend on, and the SHA-256, in hexadecimal, of its token ids: those of
    all attempts, choice by choice, each id as 4 bytes, little-endian.
    """

    fingerprint: Fingerprint
    seed: int
    token_digest: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The terminal of a run: one end per choice, one vector per text to embed, one score per document, or a failure.
    Times and counts are of this attempt alone.

    `tokens_in` counts the prompt, `cached_tokens` the part of it that did not have to be evaluated, `tokens_out` what
    was generated for all choices, also before a failure; a prefix that was resumed counts nowhere. A deterministic run
    that did not fail has a `receipt`.
    """

    choices: tuple[ChoiceEnd, ...] = ()
    failure: RunFailure | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cached_tokens: int = 0
    prefill_ms: int = 0
    decode_ms: int = 0
    embeddings: tuple[tuple[float, ...], ...] = ()
    scores: tuple[float, ...] = ()
    receipt: Receipt | None = None
