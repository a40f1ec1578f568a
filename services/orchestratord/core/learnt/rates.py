"""Rates learnt from the work done so far: speeds per model, device and batch, times to load, lengths of answers.

A rate without observations is None: nothing is invented here. Times are in ms.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from orchestratord.core.learnt.answer_lengths import Answer, Answers
from orchestratord.core.learnt.estimates import Estimate, Learnt, Reliability

SMALLEST_PROMPT = 4
"""With fewer tokens to evaluate, what is measured is the step and not the prompt."""


def device_key(names: Iterable[str]) -> str:
    """The name of a worker's devices in rates: cards of one kind share what was learnt."""
    return " + ".join(names)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that came to its end by itself.

    `batch` is how many ran with it, itself included, on the average. `app` is None where the app is
    gone meanwhile, or the answer says nothing of how long others become.
    """

    app: str | None
    model: str
    device: str
    batch: int
    prompt_tokens_guessed: int
    tokens_in: int
    cached_tokens: int
    tokens_out: int
    choices: int
    was_cut: bool
    prefill_ms: int
    decode_ms: int


class Quantity(StrEnum):
    """What a rate is of, and what its `where` and `size` are."""

    PREFILL = "prefill"
    """ms per token of a prompt; a device, and the number of bits of the prompt's length in tokens."""
    DECODE = "decode"
    """ms per token of an answer; a device, and the batch."""
    HOLDING = "holding"
    """ms for which a run holds its slot."""
    PROMPT = "prompt"
    """Tokens of a prompt for one that was guessed."""
    LOAD = "load"
    """ms from asking for a worker until it is ready; a node."""
    BANDWIDTH = "bandwidth"
    """MiB of a model's file that are loaded in a ms; a node. Of no model in particular."""


_WEIGHTS = {Quantity.LOAD: 0.3}
_WEIGHT = 0.1
_KEPT_EVERY = 16

MOST_RATES = 8192
"""Of all models and places together; the one that was measured longest ago goes first."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One learnt rate, as it is stored over a restart."""

    quantity: Quantity
    model: str
    where: str
    size: int
    estimate: Estimate

    @property
    def record_key(self) -> str:
        return f"{self.quantity} {self.model} {self.size} {self.where}"


_Subject = tuple[Quantity, str, str]
"""What is measured, of which model, and where."""

_OF_NODES = (Quantity.LOAD, Quantity.BANDWIDTH)


@dataclass(slots=True)
class Rates:
    on_time: Reliability = field(default_factory=Reliability)
    answers: Answers = field(default_factory=Answers)
    _known: dict[_Subject, dict[int, Learnt]] = field(default_factory=dict)
    """Those that were measured last come last."""
    _count: int = 0
    _to_keep: list[Rate] = field(default_factory=list)
    _forgotten: list[Rate] = field(default_factory=list)

    def ran(self, run: Run) -> None:
        """A worker that reports no times teaches nothing of speed."""
        evaluated = run.tokens_in - run.cached_tokens
        if evaluated >= SMALLEST_PROMPT and (run.prefill_ms or run.decode_ms):
            size = evaluated.bit_length()
            self._learn(Quantity.PREFILL, run.model, run.device, size, run.prefill_ms / evaluated)
        if run.tokens_out > run.choices and run.decode_ms:
            per_token = run.decode_ms * run.choices / (run.tokens_out - run.choices)
            self._learn(Quantity.DECODE, run.model, run.device, run.batch, per_token)
        if run.prompt_tokens_guessed and run.tokens_in:
            self._learn(Quantity.PROMPT, run.model, "", 0, run.tokens_in / run.prompt_tokens_guessed)
        if run.tokens_out and run.app is not None:
            self.answers.came(run.app, run.model, Answer(run.tokens_out // run.choices, run.was_cut))

    def held(self, model: str, took_ms: float) -> None:
        """A run has given its slot back after this time, however it ended."""
        self._learn(Quantity.HOLDING, model, "", 0, took_ms)

    def loaded(self, model: str, node_id: str, size_mib: int | None, took_ms: float) -> None:
        self._learn(Quantity.LOAD, model, node_id, 0, took_ms)
        if size_mib and took_ms > 0:
            self._learn(Quantity.BANDWIDTH, "", node_id, 0, size_mib / took_ms)

    def prefill_ms(self, model: str, device: str, tokens: int) -> Estimate | None:
        """Time to evaluate so many tokens of a prompt, by prompts of about that size."""
        sizes = self._known.get((Quantity.PREFILL, model, device))
        if not sizes:
            return None
        nearest = min(sizes, key=lambda size: (abs(size - tokens.bit_length()), size))
        per_token = sizes[nearest].estimate
        return per_token and per_token.times(tokens)

    def decode_ms(self, model: str, device: str, batch: int, tokens: int) -> Estimate | None:
        """Time to generate so many tokens while `batch` runs share the worker; between known batches it is linear."""
        batches = self._known.get((Quantity.DECODE, model, device))
        if not batches:
            return None
        below = max((known for known in batches if known <= batch), default=min(batches))
        above = min((known for known in batches if known >= batch), default=max(batches))
        low, high = batches[below].estimate, batches[above].estimate
        if low is None or high is None:
            return None
        share = 0.0 if above == below else (batch - below) / (above - below)
        mean = low.mean + share * (high.mean - low.mean)
        return Estimate(mean, max(low.spread, high.spread), min(low.count, high.count)).times(tokens)

    def fastest_token_ms(self, model: str) -> float | None:
        """The least time that a token of an answer takes, on any device and in any batch; 0 if that is uncertain."""
        of_model = (known for (what, name, _), known in self._known.items() if (what, name) == (Quantity.DECODE, model))
        estimates = (learnt.estimate for batches in of_model for learnt in batches.values())
        return min((max(0.0, one.mean - 2 * one.spread) for one in estimates if one), default=None)

    def holding_ms(self, model: str) -> Estimate | None:
        """How long a run of the model holds its slot, whatever the request."""
        return self._estimate(Quantity.HOLDING, model)

    def load_ms(self, model: str, node_id: str, size_mib: int | None = None) -> Estimate | None:
        """As measured before; for a model that is new to the node, by its size and what others took there."""
        if measured := self._estimate(Quantity.LOAD, model, node_id):
            return measured
        bandwidth = self._estimate(Quantity.BANDWIDTH, "", node_id)
        if not size_mib or bandwidth is None:
            return None
        took_ms = size_mib / bandwidth.mean
        return Estimate(took_ms, took_ms * bandwidth.spread / bandwidth.mean, bandwidth.count)

    def prompt_tokens(self, model: str, guessed: int) -> int:
        """The guess, corrected by earlier guesses for this model."""
        factor = self._estimate(Quantity.PROMPT, model)
        return guessed if factor is None else round(guessed * factor.mean)

    def take_to_keep(self) -> list[Rate]:
        """What has changed enough to be worth a write; each is given out once."""
        to_keep, self._to_keep = self._to_keep, []
        return to_keep

    def take_forgotten(self) -> list[Rate]:
        """What is not kept any more; each is given out once."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def forget_model(self, model: str) -> None:
        """Nothing is known of it any more."""
        self.answers.forget_model(model)
        self._forget([subject for subject in self._known if subject[1] == model])

    def forget_node(self, node_id: str) -> None:
        self._forget([subject for subject in self._known if subject[0] in _OF_NODES and subject[2] == node_id])

    def restore(self, rate: Rate) -> None:
        sizes = self._sizes_of((rate.quantity, rate.model, rate.where))
        self._count += rate.size not in sizes
        sizes[rate.size] = Learnt.going_on(rate.estimate, _WEIGHTS.get(rate.quantity, _WEIGHT))

    def _estimate(self, quantity: Quantity, model: str, where: str = "") -> Estimate | None:
        learnt = self._known.get((quantity, model, where))
        return learnt[0].estimate if learnt else None

    def _learn(self, quantity: Quantity, model: str, where: str, size: int, value: float) -> None:
        sizes = self._sizes_of((quantity, model, where))
        learnt = sizes.get(size)
        if learnt is None:
            learnt = sizes[size] = Learnt(_WEIGHTS.get(quantity, _WEIGHT))
            self._count += 1
            self._make_room()
        learnt.take_in(value)
        known = learnt.estimate
        if known is not None and (known.count % _KEPT_EVERY == 0 or known.count & (known.count - 1) == 0):
            self._to_keep.append(Rate(quantity, model, where, size, known))

    def _sizes_of(self, subject: _Subject) -> dict[int, Learnt]:
        """Measured now, so it goes last."""
        sizes = self._known[subject] = self._known.pop(subject, {})
        return sizes

    def _make_room(self) -> None:
        """Never the one that was measured just now, which is the last."""
        while self._count > MOST_RATES and len(self._known) > 1:
            self._forget([next(iter(self._known))])

    def _forget(self, subjects: list[_Subject]) -> None:
        for subject in subjects:
            sizes = self._known.pop(subject)
            self._count -= len(sizes)
            what, model, where = subject
            self._forgotten += [
                Rate(what, model, where, size, of.estimate) for size, of in sizes.items() if of.estimate
            ]
