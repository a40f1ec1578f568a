"""A constraint for the answer of a model that thinks first: its thoughts are free, what follows them is not. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from llorch.errors import invalid_field
from worker_orcd.chat.chat_format import THINK_CLOSE, THINK_OPEN

TokenIds = NDArray[np.int32]

_MOST_WHITE_SPACE = 8
"""Characters before the thoughts, and between them and the answer."""


class AnyConstraint(Protocol):
    """What the rest of one choice's output has to look like. Belongs to one thread at a time."""

    def after(self, token_ids: Sequence[int]) -> Self:
        """Another one, as this one is after an output. Raises InvalidArgument if it does not allow that output."""
        ...

    def allows(self, token_id: int) -> bool:
        """Whether this may be the next token: microseconds, where `allowed` takes up to milliseconds."""
        ...

    def allowed(self) -> TokenIds:
        """The ids of all tokens that may come next."""
        ...

    def accept(self, token_id: int) -> None:
        """The next token, one that is allowed and does not end the text."""
        ...

    @property
    def complete(self) -> bool:
        """Nothing can follow any more."""
        ...


class ThoughtTokens:
    """The tokens of a vocabulary that matter between thoughts and answers. `marks` are those that have no text of their
    own and stand for a mark.
    """

    def __init__(self, pieces: Sequence[str | bytes], marks: Mapping[int, str], ends_text: frozenset[int]) -> None:
        self._pieces = pieces
        self._marks = marks
        self.ends_text = ends_text
        texts = [self.text(token_id) for token_id in range(len(pieces))]
        self.white = _ids(at for at, text in enumerate(texts) if text and not text.strip())
        self.opening = _ids(at for at, text in enumerate(texts) if _may_open(text))
        self.closing = _ids(at for at, text in enumerate(texts) if THINK_CLOSE[-1] in text)
        free = np.ones(len(pieces), np.bool_)
        free[[*ends_text, *self.closing]] = False
        self.free = np.flatnonzero(free).astype(np.int32)
        """All that may come within thoughts whatever was said before."""

    def text(self, token_id: int) -> str:
        piece = self._marks.get(token_id, self._pieces[token_id])
        return piece if isinstance(piece, str) else piece.decode(errors="replace")


class _Stage(Enum):
    START = auto()
    THOUGHTS = auto()
    BETWEEN = auto()
    ANSWER = auto()


class ThoughtsFirst:
    """`answer` is what holds after the thoughts, or from the beginning where there are none. `thinking`: the prompt has
    opened them already; `said` is what it has of them.
    """

    def __init__(self, answer: AnyConstraint, tokens: ThoughtTokens, *, thinking: bool, said: str = "") -> None:
        self._answer = answer
        self._tokens = tokens
        self._at = _Stage.THOUGHTS if thinking else _Stage.START
        self._tail = said[1 - len(THINK_CLOSE) :] if thinking else ""
        """What may be the beginning of a mark, or is white space."""

    def after(self, token_ids: Sequence[int]) -> "ThoughtsFirst":
        later = ThoughtsFirst(self._answer, self._tokens, thinking=False)
        later._at, later._tail = self._at, self._tail
        for number, token_id in enumerate(token_ids):
            if later._at is _Stage.ANSWER:
                later._answer = later._answer.after(token_ids[number:])
                return later
            if not later.allows(token_id):
                raise invalid_field("prefix", "does not follow the output constraint")
            if later._step(token_id) is None:
                later._at = _Stage.ANSWER
                later._answer = later._answer.after(token_ids[number:])
                return later
            later._go(token_id)
        later._answer = later._answer.after(())
        return later

    def allows(self, token_id: int) -> bool:
        if (
            self._at is not _Stage.ANSWER
            and token_id not in self._tokens.ends_text
            and self._step(token_id) is not None
        ):
            return True
        return self._answer_may_begin and self._answer.allows(token_id)

    def allowed(self) -> TokenIds:
        tokens = self._tokens
        match self._at:
            case _Stage.ANSWER:
                return self._answer.allowed()
            case _Stage.THOUGHTS:
                return np.union1d(tokens.free, self._stepping(tokens.closing))
            case _Stage.START:
                own = self._stepping(np.union1d(tokens.opening, tokens.white))
            case _Stage.BETWEEN:
                own = self._stepping(tokens.white)
        return np.union1d(own, self._answer.allowed()) if self._answer_may_begin else own

    def accept(self, token_id: int) -> None:
        if self._at is _Stage.ANSWER or self._step(token_id) is None:
            self._at = _Stage.ANSWER
            self._answer.accept(token_id)
        else:
            self._go(token_id)

    @property
    def complete(self) -> bool:
        return self._at is _Stage.ANSWER and self._answer.complete

    @property
    def _answer_may_begin(self) -> bool:
        """Not after half of a mark."""
        return self._at in (_Stage.ANSWER, _Stage.BETWEEN) or (self._at is _Stage.START and not self._tail.strip())

    def _go(self, token_id: int) -> None:
        following = self._step(token_id)
        assert following is not None  # the caller has looked
        self._at, self._tail = following

    def _step(self, token_id: int) -> tuple[_Stage, str] | None:
        """Where this token leads before the answer; None where it does not belong there."""
        text = self._tokens.text(token_id)
        if not text and self._at is not _Stage.THOUGHTS:
            return None
        said = self._tail + text
        match self._at:
            case _Stage.START:
                begun = said.lstrip()
                if len(said) - len(begun) > _MOST_WHITE_SPACE:
                    return None
                if begun.startswith(THINK_OPEN):
                    return _in_thoughts(begun[len(THINK_OPEN) :])
                return (_Stage.START, said) if THINK_OPEN.startswith(begun) else None
            case _Stage.THOUGHTS:
                return _in_thoughts(said)
            case _Stage.BETWEEN:
                return (_Stage.BETWEEN, said) if not said.strip() and len(said) <= _MOST_WHITE_SPACE else None
        return None

    def _stepping(self, token_ids: TokenIds) -> TokenIds:
        ends = self._tokens.ends_text
        return _ids(at for at in token_ids.tolist() if at not in ends and self._step(at) is not None)


def _may_open(text: str) -> bool:
    """Whether it can be a part of the mark, with white space before or after it."""
    part = text.strip()
    return bool(part) and (part in THINK_OPEN or any(part.startswith(THINK_OPEN[at:]) for at in range(len(THINK_OPEN))))


def _in_thoughts(said: str) -> tuple[_Stage, str] | None:
    """A token with the end of the thoughts and a part of the answer in it is not taken."""
    _, mark, rest = said.partition(THINK_CLOSE)
    if not mark:
        return _Stage.THOUGHTS, said[1 - len(THINK_CLOSE) :]
    return (_Stage.BETWEEN, rest) if not rest.strip() and len(rest) <= _MOST_WHITE_SPACE else None


def _ids(found: Iterable[int]) -> TokenIds:
    return np.fromiter(found, np.int32)
