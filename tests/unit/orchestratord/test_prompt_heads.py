"""Prompts that begin alike have blocks that are alike, as far as they do."""

import pytest

from llama_orch.v2.task_pb2 import ChatInput, ChatMessage, ContentPart, GenerateWork, TaskSpec, ToolCall, ToolDefinition
from orchestratord.api.prompt_heads import to_head
from orchestratord.core.facts.warmth import BLOCK_BYTES, MOST_BLOCKS

pytestmark = pytest.mark.req("ORCH-1018")


def of_text(text: str, *, deterministic: bool = False) -> TaskSpec:
    return TaskSpec(generate=GenerateWork(prompt=text), deterministic=deterministic)


def said(role: str, *texts: str, **fields: object) -> ChatMessage:
    return ChatMessage(role=role, content=[ContentPart(text=text) for text in texts], **fields)  # type: ignore[arg-type]


def of_chat(*messages: ChatMessage, **fields: object) -> TaskSpec:
    return TaskSpec(generate=GenerateWork(chat=ChatInput(messages=messages, **fields)))  # type: ignore[arg-type]


def alike(one: TaskSpec, other: TaskSpec) -> int:
    """The bytes with which both begin, by their blocks."""
    blocks = zip(to_head(one).blocks, to_head(other).blocks, strict=False)
    return BLOCK_BYTES * sum(a == b for a, b in blocks)


def test_a_text_that_goes_on_has_all_whole_blocks_of_its_beginning() -> None:
    beginning, rest = "a" * 2000, "b" * 3000
    assert len(to_head(of_text(beginning)).blocks) == 2000 // BLOCK_BYTES
    assert to_head(of_text(beginning + rest)).size == 5000
    assert alike(of_text(beginning), of_text(beginning + rest)) == 1536


def test_nothing_is_alike_after_the_first_difference() -> None:
    assert alike(of_text("a" * 5000), of_text("a" * 700 + "b" + "a" * 4299)) == 512
    assert alike(of_text("a" * 5000), of_text("b" + "a" * 4999)) == 0


def test_a_short_text_has_no_block() -> None:
    assert not to_head(of_text("a" * (BLOCK_BYTES - 1))).blocks
    assert not to_head(TaskSpec()).blocks


def test_a_conversation_goes_on_with_its_next_turn() -> None:
    turn = [said("system", "s" * 1000), said("user", "u" * 1000)]
    following = [*turn, said("assistant", "yes"), said("user", "and now?")]
    assert alike(of_chat(*turn), of_chat(*following)) == len(to_head(of_chat(*turn)).blocks) * BLOCK_BYTES > 1500


def test_a_document_is_alike_under_two_questions_of_one_message() -> None:
    document = "d" * 4000
    assert alike(of_chat(said("user", document + "why?")), of_chat(said("user", document + "wherefore?"))) >= 3584


@pytest.mark.parametrize(
    "other",
    [
        of_chat(said("system", "u" * 2000)),
        of_chat(said("user", "u" * 2000), tools=[ToolDefinition(name="look")]),
        of_chat(said("user", "u" * 2000), template_values="{}"),
        of_chat(said("user", "u" * 2000, name="eve")),
        of_chat(said("user", "u", "u" * 1999)),
        of_text("u" * 2000),
    ],
    ids=["role", "tools", "template", "name", "parts", "text"],
)
def test_what_a_template_may_show_first_tells_conversations_apart(other: TaskSpec) -> None:
    assert alike(of_chat(said("user", "u" * 2000)), other) == 0


def test_calls_of_tools_count() -> None:
    def called(arguments: str) -> TaskSpec:
        return of_chat(said("assistant", "a" * 600, tool_calls=[ToolCall(name="look", arguments=arguments)]))

    assert alike(called("x" * 3000), called("x" * 2000 + "y" * 1000)) == 2560
    assert alike(called("x" * 3000), called("y" * 3000)) == 512


def test_bits_of_deterministic_runs_are_their_own() -> None:
    assert alike(of_text("a" * 5000), of_text("a" * 5000, deterministic=True)) == 0
    assert alike(of_text("a" * 5000, deterministic=True), of_text("a" * 5000, deterministic=True)) == 4608


@pytest.mark.parametrize("pieces", [1, 3, 2000])
def test_of_a_long_prompt_the_beginning_is_looked_at(pieces: int) -> None:
    size = MOST_BLOCKS * BLOCK_BYTES * 2
    texts = ["é" * (size // 2 // pieces) for _ in range(pieces)]
    head = to_head(of_chat(said("user", *texts)))
    assert len(head.blocks) == MOST_BLOCKS
    assert head.size >= size - 2 * pieces
