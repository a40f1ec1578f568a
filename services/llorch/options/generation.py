"""The options of a generation: `GenerateWork`, `ChatInput` and `OutputConstraint` of the contract."""

from dataclasses import dataclass
from types import MappingProxyType

from llorch.options.option import BYTES, Option, Range, Table, described, table_of

MAX_INPUT_BYTES = 4 * 1024 * 1024
"""Text of one request, all messages together, in UTF-8."""

MAX_MESSAGES = 2048
MAX_PARTS = 4096
"""Pieces of content and tool calls of one request, those of all messages together."""
MAX_TOOLS = 128

MAX_REQUEST_BYTES = MAX_INPUT_BYTES + 1024 * 1024
"""A whole request: its text, and what goes with it, such as roles, options and wishes."""
MAX_REQUEST_FIELDS = 32_768
"""Of a whole request, those of all messages and parts in it; what is within the other limits has about 28,000."""

MAX_CONSTRAINT_BYTES = 64 * 1024
MAX_CONSTRAINT_NESTING = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """Options of `GenerateWork` beside its input, sampling, constraint and number of choices. A run of the worker has
    them under the contract's names.

    `max_tokens` None = as many as the context holds; `top_logprobs` None = no log probabilities at all.
    """

    max_tokens: int | None = described(
        None, Option("Most tokens of an answer.", Range(1, 1_048_576), default="what the context leaves", unit="tokens")
    )
    stop: tuple[str, ...] = described(
        (),
        Option(
            "The answer ends before any of these, which is left out.",
            Range(1, 1024),
            unit=BYTES,
            entries=Range(0, 64),
        ),
    )
    stop_token_ids: tuple[int, ...] = described(
        (), Option("The answer ends at any of these tokens.", entries=Range(0, 64))
    )
    ignore_eos: bool = described(False, Option("Go on after the model's end-of-text token.", default="false"))
    control_tokens: bool = described(
        False,
        Option("Control tokens that a plain prompt spells out are control tokens, not text.", default="false"),
    )
    continue_last_message: bool = described(
        False,
        Option(
            "The last message of a chat is the assistant's and is continued; the answer is what comes after it.",
            default="false",
        ),
    )
    top_logprobs: int | None = described(
        None,
        Option(
            "Alternatives with log probabilities per token; 0 gives that of the chosen token only.",
            Range(0, 20),
            default="no log probabilities",
        ),
    )


GENERATION: Table = MappingProxyType(
    {**table_of(AnswerOptions), "n": Option("Choices to generate from the same prompt.", Range(1, 16), default=1)}
)

MESSAGES = Option("Messages in order.", entries=Range(1, MAX_MESSAGES))

CHAT: Table = MappingProxyType(
    {
        "tools": Option("Tools that the model may call.", entries=Range(0, MAX_TOOLS)),
        "tool_choice": Option(
            '"auto", "none", "required", or the name of a tool.',
            default='"auto"',
        ),
        "template_values": Option(
            'Values for variables of the model\'s chat template, JSON object, e.g. {"enable_thinking": false}.'
        ),
    }
)

_SIZE = Range(0, MAX_CONSTRAINT_BYTES)

OUTPUT_CONSTRAINT: Table = MappingProxyType(
    {
        "grammar": Option(f"A GBNF grammar, nested at most {MAX_CONSTRAINT_NESTING} deep.", _SIZE, unit=BYTES),
        "json_schema": Option(
            f"A JSON schema, an object, nested at most {MAX_CONSTRAINT_NESTING} deep.", _SIZE, unit=BYTES
        ),
    }
)
