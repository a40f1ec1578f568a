"""A constraint for the answer of a model that thinks first: its thoughts are free, what follows them is not. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto

import numpy as np

from llorch.errors import invalid_field
from worker_orcd.chat.thought_marks import ThoughtMarks
from worker_orcd.constraint.any_constraint import AnyConstraint, TokenIds

_WHITE_SPACE = " \t\r\n"
"""That of JSON: what stands before an answer may be shown with it."""
_MOST_WHITE_SPACE = 8
"""Characters before each mark, and before the answer."""


class ThoughtTokens:
    """The tokens of a vocabulary that matter between thoughts and answers. `spelled` are those that have no text of
    their own and stand for a mark.
    """

    def __init__(
        self,
        pieces: Sequence[str | bytes],
        spelled: Mapping[int, str],
        ends_text: frozenset[int],
        marks: ThoughtMarks,
    ) -> None:
        self._pieces = pieces
        self._spelled = spelled
        self.ends_text = ends_text
        self.marks = marks
        texts = [self.text(token_id) for token_id in range(len(pieces))]
        begun = [mark for mark in (marks.opening, marks.answer, marks.turn + marks.answer) if mark]
        self.white = _ids(at for at, text in enumerate(texts) if text and not text.strip(_WHITE_SPACE))
        self.in_marks = _ids(at for at, text in enumerate(texts) if any(_may_be_in(text, mark) for mark in begun))
        self.closing = _ids(at for at, text in enumerate(texts) if _may_complete(text, marks.closing))
        free = np.ones(len(pieces), np.bool_)
        free[[*ends_text, *self.closing]] = False
        self.free = np.flatnonzero(free).astype(np.int32)
        """All that may come within thoughts whatever was said before."""

    def text(self, token_id: int) -> str:
        piece = self._spelled.get(token_id, self._pieces[token_id])
        return piece if isinstance(piece, str) else piece.decode(errors="replace")


class _Stage(Enum):
    START = auto()
    THOUGHTS = auto()
    BETWEEN = auto()
    """The thoughts are over; a mark has to come before the answer."""
    OPEN = auto()
    """The answer has to come."""
    ANSWER = auto()


class ThoughtsFirst:
    """`answer` is what holds after the thoughts, or from the beginning where there are none. `thinking`: the prompt has
    opened them already; `said` is what it has of them.
    """

    def __init__(self, answer: AnyConstraint, tokens: ThoughtTokens, *, thinking: bool, said: str = "") -> None:
        marks = tokens.marks
        self._answer = answer
        self._tokens = tokens
        self._after_thoughts = _Stage.BETWEEN if marks.turn or marks.answer else _Stage.OPEN
        self._expected = {
            _Stage.START: {marks.opening: _Stage.THOUGHTS} | ({marks.answer: _Stage.OPEN} if marks.answer else {}),
            _Stage.BETWEEN: {marks.turn + marks.answer: _Stage.OPEN},
        }
        """The marks that may come at a stage, and where they lead."""
        self._at = _Stage.THOUGHTS if thinking else _Stage.START
        self._tail = said[1 - len(marks.closing) :] if thinking else ""
        """What may be the beginning of a mark, or is white space."""

    def after(self, token_ids: Sequence[int]) -> "ThoughtsFirst":
        later = ThoughtsFirst(self._answer, self._tokens, thinking=False)
        later._at, later._tail = self._at, self._tail
        for number, token_id in enumerate(token_ids):
            if later._goes_on_before_the_answer(token_id):
                continue
            if not later._answer_may_begin:
                raise invalid_field("prefix", "does not follow the output constraint")
            later._at = _Stage.ANSWER
            later._answer = self._answer.after(token_ids[number:])
            return later
        later._answer = self._answer.after(())
        return later

    def allows(self, token_id: int) -> bool:
        return self._step(token_id) is not None or (self._answer_may_begin and self._answer.allows(token_id))

    def allowed(self) -> TokenIds:
        tokens = self._tokens
        match self._at:
            case _Stage.ANSWER:
                return self._answer.allowed()
            case _Stage.THOUGHTS:
                return np.union1d(tokens.free, self._stepping(tokens.closing))
            case _Stage.OPEN:
                own = self._stepping(tokens.white)
            case _Stage.START | _Stage.BETWEEN:
                own = self._stepping(np.union1d(tokens.in_marks, tokens.white))
        return np.union1d(own, self._answer.allowed()) if self._answer_may_begin else own

    def accept(self, token_id: int) -> None:
        if not self._goes_on_before_the_answer(token_id):
            self._at = _Stage.ANSWER
            self._answer.accept(token_id)

    @property
    def complete(self) -> bool:
        return self._at is _Stage.ANSWER and self._answer.complete

    @property
    def _answer_may_begin(self) -> bool:
        """Not before a mark that has to come, and not after half of one."""
        if self._at is _Stage.START:
            return not self._tokens.marks.answer and not self._tail.strip(_WHITE_SPACE)
        return self._at in (_Stage.OPEN, _Stage.ANSWER)

    def _goes_on_before_the_answer(self, token_id: int) -> bool:
        following = self._step(token_id)
        if following is None:
            return False
        self._at, self._tail = following
        return True

    def _step(self, token_id: int) -> tuple[_Stage, str] | None:
        """Where this token leads before the answer; None where it does not belong there."""
        text = self._tokens.text(token_id)
        if self._at is _Stage.ANSWER or token_id in self._tokens.ends_text:
            return None
        if self._at is _Stage.THOUGHTS:
            return self._in_thoughts(self._tail + text)
        return self._between_marks(self._tail + text) if text else None

    def _between_marks(self, said: str) -> tuple[_Stage, str] | None:
        begun = said.lstrip(_WHITE_SPACE)
        if len(said) - len(begun) > _MOST_WHITE_SPACE:
            return None
        expected = self._expected.get(self._at, {})
        for mark, stage in expected.items():
            if begun.startswith(mark):
                rest = begun[len(mark) :]
                return self._in_thoughts(rest) if stage is _Stage.THOUGHTS else _if_white(stage, rest)
        return (self._at, said) if not begun or any(mark.startswith(begun) for mark in expected) else None

    def _in_thoughts(self, said: str) -> tuple[_Stage, str] | None:
        """A token with the end of the thoughts and a part of the answer in it is not taken."""
        closing = self._tokens.marks.closing
        _, mark, rest = said.partition(closing)
        return _if_white(self._after_thoughts, rest) if mark else (_Stage.THOUGHTS, said[1 - len(closing) :])

    def _stepping(self, token_ids: TokenIds) -> TokenIds:
        return _ids(at for at in token_ids.tolist() if self._step(at) is not None)


def _if_white(stage: _Stage, rest: str) -> tuple[_Stage, str] | None:
    return (stage, rest) if not rest.strip(_WHITE_SPACE) and len(rest) <= _MOST_WHITE_SPACE else None


def _may_be_in(text: str, mark: str) -> bool:
    """Whether it can be a part of the mark, with white space before or after it."""
    part = text.strip(_WHITE_SPACE)
    return bool(part) and (part in mark or _begins_with_its_end(part, mark))


def _may_complete(text: str, mark: str) -> bool:
    """Whether the mark can come to its end in it."""
    return mark in text or _begins_with_its_end(text, mark)


def _begins_with_its_end(text: str, mark: str) -> bool:
    return mark[-1] in text and any(mark.endswith(text[:end]) for end in range(1, min(len(text), len(mark)) + 1))


def _ids(found: Iterable[int]) -> TokenIds:
    return np.fromiter(found, np.int32)
