"""A constraint that begins after the thoughts, over a vocabulary of bytes, words, and marks with and without a text."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from llorch.errors import InvalidArgument
from worker_orcd.chat.thought_marks import HARMONY, marks_in
from worker_orcd.constraint.thoughts_first import ThoughtsFirst
from worker_orcd.engines.llama_cpp.constraints import ConstraintCompiler
from worker_orcd.run_spec import ConstraintKind, OutputConstraint

BYTES = [bytes([byte]) for byte in range(256)]
WORDS = ["", "think", "</", ">\n\n", ">{", "Hm", " \n", "", "", ""]
END, THINK, CLOSE_HALF, CLOSES, CLOSES_AND_MORE, HM, WHITE, OPEN, CLOSE, CONTROL = range(256, 266)
MODEL: Any = SimpleNamespace(pieces=[*BYTES, *WORDS], ends_text=frozenset({END}), vocabulary_size=266)
COMPILER = ConstraintCompiler(MODEL)
MARKS = {OPEN: "<think>", CLOSE: "</think>"}
SCHEMA = OutputConstraint(ConstraintKind.JSON_SCHEMA, json.dumps({"enum": ["yes", "no"]}))


def constraint(*, thinking: bool = False) -> ThoughtsFirst:
    return COMPILER.after_thoughts(COMPILER.compile(SCHEMA).after(()), MARKS, thinking=thinking).after(())


def spelled(*parts: str | int) -> list[int]:
    return [it for part in parts for it in ([part] if isinstance(part, int) else part.encode())]


def takes(token_ids: Sequence[int], *, thinking: bool = False) -> bool:
    return follows(constraint(thinking=thinking), token_ids, END)


def follows(at: ThoughtsFirst, token_ids: Sequence[int], end: int) -> bool:
    """Whether it is a whole output; both ways to ask have to agree at each token."""
    for token_id in token_ids:
        assert at.allows(token_id) == (token_id in at.allowed().tolist()), token_id
        if not at.allows(token_id):
            return False
        at.accept(token_id)
    return at.allows(end)


@pytest.mark.parametrize(
    "said",
    [
        spelled('"yes"'),
        spelled("<think>well...</think>", '"yes"'),
        spelled("<think>well...</think>\n\n", '"no"'),
        spelled("\n<", THINK, ">a <b> </thin", "</think>", WHITE, '"no"'),
        spelled(OPEN, HM, CONTROL, "...", CLOSE, WHITE, '"no"'),
        spelled("<think>", CLOSE_HALF, THINK, CLOSES, '"no"'),
    ],
)
def test_thoughts_are_free_and_the_answer_is_not(said: list[int]) -> None:
    assert takes(said)


@pytest.mark.parametrize(
    "said",
    [
        spelled("well"),
        spelled("<thinker>"),
        spelled("<think>never closed"),
        spelled("<think>a</think>maybe"),
        spelled(OPEN, HM, END),
        spelled("<think>", CLOSE_HALF, THINK, CLOSES_AND_MORE),
        spelled("<think>a</think>", " " * 9, '"no"'),
        spelled(" " * 9, '"no"'),
        spelled("\x1d", '"no"'),
        spelled("<think>a</think>\v", '"no"'),
        spelled("<", '"no"'),
        spelled(CONTROL, '"no"'),
        spelled('"no"', "<think>a</think>"),
    ],
)
def test_what_is_not_thought_follows_the_constraint(said: list[int]) -> None:
    assert not takes(said)


def test_thoughts_that_the_prompt_has_opened_go_on() -> None:
    assert takes(spelled("hm", CLOSE, WHITE, '"yes"'), thinking=True)
    assert not takes(spelled('"yes"'), thinking=True)
    assert not constraint(thinking=True).complete


@pytest.mark.parametrize("cut", range(9))
def test_a_resumed_output_goes_on_where_it_was(cut: int) -> None:
    said = spelled(OPEN, HM, CLOSE, WHITE, '"yes"')
    at = constraint().after(said[:cut])
    for token_id in said[cut:]:
        assert at.allows(token_id)
        at.accept(token_id)
    assert at.allows(END)
    assert at.complete


def test_a_prefix_that_does_not_follow_is_refused() -> None:
    for said in (spelled("maybe"), spelled("<think>a</think>maybe"), spelled("<think>", END)):
        with pytest.raises(InvalidArgument, match="output constraint"):
            constraint().after(said)


def test_thoughts_that_the_prompt_has_half_closed_are_closed_by_the_other_half() -> None:
    answer = COMPILER.compile(SCHEMA).after(())
    going_on = COMPILER.after_thoughts(answer, MARKS, thinking=True, said="<think>Hm</thi").after(())
    for token_id in spelled("nk>", '"yes"'):
        assert going_on.allows(token_id)
        going_on.accept(token_id)
    assert going_on.complete


HARMONY_WORDS = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "assistant", "final", "analysis", "<|", "", ""]
CHANNEL, MESSAGE, BEGIN, OVER, ASSISTANT, FINAL, ANALYSIS, HALF, RETURN, UNSEEN = range(256, 266)
HARMONY_MODEL: Any = SimpleNamespace(
    pieces=[*BYTES, *HARMONY_WORDS], ends_text=frozenset({RETURN}), vocabulary_size=266
)
THINKS = (CHANNEL, ANALYSIS, MESSAGE, "well {...", OVER)
ANSWERS = (CHANNEL, FINAL, MESSAGE)


def in_harmony(*parts: str | int, thinking: bool = False) -> bool:
    compiler = ConstraintCompiler(HARMONY_MODEL)
    at = compiler.after_thoughts(compiler.compile(SCHEMA), {}, thinking=thinking, thoughts=HARMONY)
    return follows(at, spelled(*parts), RETURN)


@pytest.mark.parametrize(
    "said",
    [
        (*THINKS, BEGIN, ASSISTANT, *ANSWERS, '"yes"'),
        (*ANSWERS, '"no"'),
        ("<", "|channel|>", "fin", "al", MESSAGE, '"no"'),
        (*THINKS, BEGIN, "assist", "ant", HALF, "channel|>", FINAL, MESSAGE, '"yes"'),
        (CHANNEL, ANALYSIS, MESSAGE, UNSEEN, CHANNEL, FINAL, MESSAGE, OVER, BEGIN, ASSISTANT, *ANSWERS, '"yes"'),
    ],
)
def test_an_answer_of_several_messages_is_thoughts_and_a_final_one(said: tuple[str | int, ...]) -> None:
    assert in_harmony(*said)


@pytest.mark.parametrize(
    "said",
    [
        ('"yes"',),
        (*THINKS, '"yes"'),
        (*THINKS, BEGIN, ASSISTANT, *THINKS),
        (*THINKS, *ANSWERS, '"yes"'),
        (*THINKS, BEGIN, ASSISTANT, CHANNEL, "commentary", MESSAGE, '"yes"'),
        (CHANNEL, ANALYSIS, MESSAGE, RETURN),
        (*ANSWERS, "maybe"),
        (CHANNEL, FINAL, '"yes"'),
    ],
)
def test_no_message_but_thoughts_comes_before_the_final_one(said: tuple[str | int, ...]) -> None:
    assert not in_harmony(*said)


def test_thoughts_in_other_marks_are_free_too() -> None:
    for sign, opening, closing, answer in (
        ("[/THINK]", "[THINK]", "[/THINK]", ""),
        ("</seed:think>", "<seed:think>", "</seed:think>", ""),
        ("</thought>", "<thought>", "</thought>", ""),
        ("<|END_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>"),
    ):
        marks = marks_in(sign)
        assert marks is not None
        for tokens in ({}, {OPEN: opening, CLOSE: closing, CONTROL: answer}):
            spell = {text: token_id for token_id, text in tokens.items()}
            said = [spell.get(opening, opening), "well </think>", spell.get(closing, closing), "\n"]
            said += [spell.get(answer, answer)] if answer else []
            for output, is_right in (([*said, '"yes"'], True), ([*said, "yes"], False)):
                at = COMPILER.after_thoughts(COMPILER.compile(SCHEMA), tokens, thinking=False, thoughts=marks)
                assert follows(at, spelled(*output), END) is is_right
