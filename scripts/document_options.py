"""Write docs/options.md from the tables of options.

Run by `make gen`; `--check` only tells whether it is up to date.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from generated_documents import in_cell, markdown, write_or_check
from llorch.options.app import APP
from llorch.options.assignment import ASSIGNMENT
from llorch.options.embedding import EMBEDDING
from llorch.options.generation import CHAT, GENERATION, OUTPUT_CONSTRAINT
from llorch.options.model import MODEL
from llorch.options.option import Option, Table
from llorch.options.rerank import RERANK
from llorch.options.sampling import SAMPLING
from llorch.options.task import PLACEMENT, SESSION_BUDGET, TASK
from llorch.options.tokens import TOKENIZE

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "options.md"

INTRODUCTION = """\
# Options

What requests may say, by the messages of the contract (`proto/llama_orch/v2`). `make gen` writes this file from the
tables in `services/llorch/options/`, which the services check by. The HTTP API and the Python client have the same
names; the [OpenAI-compatible API](openai.md#what-is-supported) says which of them it has in OpenAI's form; `llorch` has
flags for those that people set most, with hyphens in place of underscores.

A value outside its range is refused with `INVALID_FIELD`, and the error names the field. An option that the engine of a
model does not have is refused with `UNSUPPORTED_OPTION`, unless it has the value that switches it off.
"""


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    message: str
    table: Table


SECTIONS = (
    Section("Tasks", "TaskSpec", TASK),
    Section("Where a task runs", "PlacementOverrides", PLACEMENT),
    Section("Budget of a session", "SessionBudget", SESSION_BUDGET),
    Section("Answers", "GenerateWork", GENERATION),
    Section("Sampling", "Sampling", SAMPLING),
    Section("Conversations", "ChatInput", CHAT),
    Section("Form of the answer", "OutputConstraint", OUTPUT_CONSTRAINT),
    Section("Embeddings", "EmbedWork", EMBEDDING),
    Section("Order of documents", "RerankWork", RERANK),
    Section("Tokens of a text", "TokenizeRequest", TOKENIZE),
    Section("Models", "ModelSpec", MODEL),
    Section("Apps", "App", APP),
    Section("Placement rules", "Assignment", ASSIGNMENT),
)


def text() -> str:
    return "\n".join([INTRODUCTION, *map(_section, SECTIONS)])


def _section(section: Section) -> str:
    rows = [_row(name, option) for name, option in section.table.items()]
    table = markdown(("Option", "Default", "Off", "Range", "Meaning"), rows)
    return f"## {section.heading}\n\nMessage `{section.message}`.\n\n{table}"


def _row(name: str, option: Option) -> tuple[str, ...]:
    return f"`{name}`", _default(option), _value(option.off), _range(option), in_cell(option.meaning)


def _default(option: Option) -> str:
    return in_cell(option.default) if isinstance(option.default, str) else _value(option.default)


def _value(value: float | None) -> str:
    return "" if value is None else f"`{value:.10g}`"


def _range(option: Option) -> str:
    each = f"each {option.range_words}" if option.entries and option.allowed else option.range_words
    return ", ".join(part for part in (option.entries_words, each) if part)


def main(arguments: list[str]) -> int:
    return write_or_check({DOCUMENT: text()}, "the tables in services/llorch/options", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
