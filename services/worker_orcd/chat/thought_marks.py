"""What families of models write around their thoughts. Pure data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThoughtMarks:
    """`turn` stands between the thoughts and what follows them. Some begin their answer with a mark, `answer`, thoughts
    or not, and end it with another one, `answer_end`. What a family has not is empty.
    """

    opening: str
    closing: str
    turn: str = ""
    answer: str = ""
    answer_end: str = ""
    parts: tuple[str, ...] = ()
    """The tokens that the marks are put together from, where they are more than one each."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Everything in the marks that may be one token of the vocabulary."""
        return self.parts or tuple(mark for mark in (self.opening, self.closing, self.answer, self.answer_end) if mark)


THINK = ThoughtMarks("<think>", "</think>")
HARMONY = ThoughtMarks(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    turn="<|start|>assistant",
    answer="<|channel|>final<|message|>",
    answer_end="<|end|>",
    parts=("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>"),
)
"""gpt-oss. What ends an answer there, `<|return|>` and `<|call|>`, ends text for llama.cpp, too; `<|end|>`, after which
the answer goes on, does not: the library takes it from those that do where it finds the other two in a vocabulary.
"""

_BY_SIGN = (
    (HARMONY.opening, HARMONY),
    (THINK.closing, THINK),
    ("[/THINK]", ThoughtMarks("[THINK]", "[/THINK]")),
    ("</seed:think>", ThoughtMarks("<seed:think>", "</seed:think>")),
    ("</thought>", ThoughtMarks("<thought>", "</thought>")),
    (
        "<|END_THINKING|>",
        ThoughtMarks(
            "<|START_THINKING|>", "<|END_THINKING|>", answer="<|START_RESPONSE|>", answer_end="<|END_RESPONSE|>"
        ),
    ),
)


def marks_in(template: str) -> ThoughtMarks | None:
    """The marks that a chat template writes; None if it writes none."""
    return next((marks for sign, marks in _BY_SIGN if sign in template), None)
