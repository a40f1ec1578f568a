"""How long answers become, by the last ones of each app and model."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

ANSWERS_REMEMBERED = 64
_LIMITS_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens of one answer; one that was cut off, by its limit, its deadline or its reader, would have gone on."""

    tokens: int
    was_cut: bool


@dataclass(frozen=True, slots=True)
class Lengths:
    """Each as likely as the others, in order; none if nothing is known."""

    values: tuple[int, ...]
    mean: float
    spread: float

    @classmethod
    def of(cls, values: Iterable[int]) -> "Lengths":
        ordered = tuple(sorted(values))
        if not ordered:
            return cls((), 0.0, 0.0)
        mean = sum(ordered) / len(ordered)
        variance = sum((value - mean) ** 2 for value in ordered) / len(ordered)
        return cls(ordered, mean, math.sqrt(variance))


NO_ANSWER = Lengths((0,), 0.0, 0.0)
"""Of work that generates nothing."""


@dataclass(slots=True)
class Answers:
    _answers: dict[str, dict[str, deque[Answer]]] = field(default_factory=dict)
    _lengths: dict[str, dict[tuple[str, int | None], Lengths]] = field(default_factory=dict)

    def came(self, app: str, model: str, answer: Answer) -> None:
        of_model = self._answers.setdefault(model, {})
        of_model.setdefault(app, deque(maxlen=ANSWERS_REMEMBERED)).append(answer)
        self._lengths.pop(model, None)

    def lengths(self, app: str, model: str, limit: int | None) -> Lengths:
        """From the last answers that the app got of the model; from those of other apps, as long as it got none."""
        known = self._lengths.setdefault(model, {})
        found = known.get((app, limit))
        if found is None:
            if len(known) >= _LIMITS_REMEMBERED:
                known.clear()
            found = known[(app, limit)] = Lengths.of(_within(self._last(app, model), limit))
        return found

    def forget_model(self, model: str) -> None:
        self._answers.pop(model, None)
        self._lengths.pop(model, None)

    def forget_app(self, app: str) -> None:
        for model, of_model in list(self._answers.items()):
            if of_model.pop(app, None) is not None:
                self._lengths.pop(model, None)
            if not of_model:
                del self._answers[model]

    def _last(self, app: str, model: str) -> Iterable[Answer]:
        of_model = self._answers.get(model, {})
        return of_model.get(app) or max(of_model.values(), key=len, default=())


def _within(answers: Iterable[Answer], limit: int | None) -> Iterable[int]:
    """How long such answers would be within another limit.

    An answer that was cut off is taken to go on as the longer ones did that were not cut off; without any, to the
    limit. To leave it out would make answers look shorter than they are just when many miss their deadline.
    """
    longer_total = longer_count = 0
    for answer in sorted(answers, key=lambda answer: answer.tokens, reverse=True):
        if not answer.was_cut:
            longer_total, longer_count = longer_total + answer.tokens, longer_count + 1
            length = answer.tokens
        elif longer_count:
            length = round(longer_total / longer_count)
        else:
            length = answer.tokens if limit is None else limit
        yield length if limit is None else min(length, limit)
