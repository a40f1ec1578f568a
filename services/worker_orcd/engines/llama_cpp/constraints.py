"""Outputs that have to follow a grammar or a JSON schema, checked by llguidance.

It is given bounds on everything that it computes, so that no grammar takes more than a fraction of a second or a
part of the memory: one that needs more is refused, or ends its own run and no other.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from llorch.errors import invalid_field
from worker_orcd.chat.thought_marks import THINK, ThoughtMarks
from worker_orcd.constraint.any_constraint import AnyConstraint
from worker_orcd.constraint.bounds import check_size, invalid_constraint
from worker_orcd.constraint.gbnf import lark_from_gbnf
from worker_orcd.constraint.gbnf_tokens import GbnfError
from worker_orcd.constraint.json_schema import json_schema
from worker_orcd.constraint.thoughts_first import ThoughtsFirst, ThoughtTokens
from worker_orcd.engines.llama_cpp.deep_stack import call_on_deep_stack
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.run_spec import ConstraintKind, OutputConstraint

_HEADER = '%llguidance {"no_forcing": true}\n'
"""Where only one text can follow, any tokens may spell it."""

_WORD_BITS = 32
_MAX_COMPLAINT = 300
_DEAD_END = "NoExtension"
_EXCERPT = re.compile(r"\n *1 \||\n<")
_PLACE = re.compile(r"^at [0-9]+\([0-9]+\): ")


def _limits() -> LLParserLimits:
    """About 50 ms for a step and 40 MB for a matcher, at most, on a slow core."""
    return LLParserLimits(
        initial_lexer_fuel=200_000,
        step_lexer_fuel=50_000,
        step_max_items=30_000,
        max_lexer_states=20_000,
        max_grammar_size=60_000,
        verbose_errors=False,
    )


class ConstraintFailed(Exception):
    """The constraint can't be followed any further. The message is for the run's client."""


class Constraint:
    """What the rest of one choice's output has to look like. Belongs to one thread at a time."""

    def __init__(self, matcher: LLMatcher, ends_text: frozenset[int], vocabulary_size: int) -> None:
        self._matcher = matcher
        self._ends_text = ends_text
        self._vocabulary_size = vocabulary_size

    def after(self, token_ids: Sequence[int]) -> "Constraint":
        """Another one, as this one is after an output. Raises InvalidArgument if it does not allow that output."""
        later = Constraint(self._matcher.deep_copy(), self._ends_text, self._vocabulary_size)
        try:
            for token_id in token_ids:
                later.accept(token_id)
        except ConstraintFailed:
            raise invalid_field("prefix", "does not follow the output constraint") from None
        return later

    def allows(self, token_id: int) -> bool:
        """Whether this may be the next token: microseconds, where `allowed` takes up to milliseconds."""
        if token_id in self._ends_text:
            return self._matcher.is_accepting()
        allowed = self._matcher.validate_tokens([token_id]) == 1
        self._check()
        return allowed

    def allowed(self) -> npt.NDArray[np.int32]:
        """The ids of all tokens that may come next."""
        words = np.zeros(-(-self._vocabulary_size // _WORD_BITS), np.uint32)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._check()
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: self._vocabulary_size]
        return np.flatnonzero(bits).astype(np.int32)

    def accept(self, token_id: int) -> None:
        """The next token, one that is allowed and does not end the text."""
        self._matcher.consume_token(token_id)
        self._check()

    @property
    def complete(self) -> bool:
        """Nothing can follow any more."""
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintFailed(f"the output constraint can't be followed: {_complaint(self._matcher.get_error())}")


class ConstraintCompiler:
    """For one model. Made when the first run needs it: it takes a part of a second."""

    def __init__(self, model: Model) -> None:
        self._ends_text = model.ends_text
        self._pieces = model.pieces
        self._vocabulary_size = model.vocabulary_size
        self._thought_tokens: dict[tuple[frozenset[tuple[int, str]], ThoughtMarks], ThoughtTokens] = {}
        """By their marks, of which a model has as many sets as it has templates, with tools and without."""
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(_Vocabulary(model)), eos_token=sorted(model.ends_text), n_vocab=model.vocabulary_size
        )

    def compile(self, constraint: OutputConstraint) -> Constraint:
        """Raises InvalidArgument that says what is wrong. Takes up to a part of a second: beside the event loop."""
        check_size(constraint)
        grammar = _grammar(constraint)
        return call_on_deep_stack(lambda: self._compile(constraint, grammar))

    def after_thoughts(
        self,
        answer: AnyConstraint,
        spelled: Mapping[int, str],
        *,
        thinking: bool,
        said: str = "",
        thoughts: ThoughtMarks = THINK,
    ) -> ThoughtsFirst:
        """The same for what comes after thoughts. `spelled` are the tokens without a text that stand for marks."""
        key = frozenset(spelled.items()), thoughts
        if key not in self._thought_tokens:
            self._thought_tokens[key] = ThoughtTokens(self._pieces, dict(spelled), self._ends_text, thoughts)
        return ThoughtsFirst(answer, self._thought_tokens[key], thinking=thinking, said=said)

    def _compile(self, constraint: OutputConstraint, grammar: str) -> Constraint:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
        if matcher.is_error():
            raise invalid_constraint(constraint, _complaint(matcher.get_error()))
        compiled = Constraint(matcher, self._ends_text, self._vocabulary_size)
        try:
            satisfiable = len(compiled.after(()).allowed()) > 0
        except ConstraintFailed as error:
            raise invalid_constraint(constraint, str(error)) from None
        if not satisfiable:
            raise invalid_constraint(constraint, "no output can satisfy it")
        return compiled


def _grammar(constraint: OutputConstraint) -> str:
    if constraint.kind is ConstraintKind.JSON_SCHEMA:
        return LLMatcher.grammar_from_lark(f"{_HEADER}start: %json {json.dumps(json_schema(constraint))}\n")
    try:
        return LLMatcher.grammar_from_lark(_HEADER + lark_from_gbnf(constraint.text))
    except GbnfError as error:
        raise invalid_constraint(constraint, str(error)) from None


def _complaint(text: str) -> str:
    """The matcher's words without its notation of the grammar, which the client never wrote."""
    if text.startswith(_DEAD_END):
        return "no output can satisfy it"
    said = _PLACE.sub("", _EXCERPT.split(text, maxsplit=1)[0]).strip()
    return said[:_MAX_COMPLAINT]


class _Vocabulary:
    """The model's vocabulary as the tokenizer's constructor wants to see it.

    A control token has no text, and no grammar allows it but at the end.
    """

    def __init__(self, model: Model) -> None:
        self.tokens = [piece.encode() if isinstance(piece, str) else piece for piece in model.pieces]
        self.special_token_ids = [token_id for token_id, piece in enumerate(self.tokens) if not piece]
        for token_id in self.special_token_ids:
            self.tokens[token_id] = b"<%d>" % token_id
        self.eos_token_id = min(model.ends_text, default=0)
        self.bos_token_id = None

    def __call__(self, _text: Any) -> list[int]:
        """Asked for when tokens are to be forced, which is not done here."""
        return []
