"""What was learnt from the work done so far: speeds per model, device and batch, times to load, lengths of answers.

What was never seen is None: nothing is invented here. Times are in ms.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestratord.core.answer_lengths import Answer, Answers
from orchestratord.core.estimates import Estimate, Learnt, Reliability

SMALLEST_PROMPT = 4
"""With fewer tokens to evaluate, what is measured is the step and not the prompt."""

_Key = tuple[str, str]


def device_key(names: Iterable[str]) -> str:
    """How a worker's devices are called here: cards of one kind share what was learnt."""
    return " + ".join(names)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that came to its end by itself.

    `batch` is how many ran with it, itself included, on the average.
    """

    app: str
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


@dataclass(slots=True)
class Rates:
    on_time: Reliability = field(default_factory=Reliability)
    answers: Answers = field(default_factory=Answers)
    _prefill: dict[_Key, dict[int, Learnt]] = field(default_factory=dict)
    _decode: dict[_Key, dict[int, Learnt]] = field(default_factory=dict)
    _holding: dict[str, Learnt] = field(default_factory=dict)
    _loads: dict[_Key, Learnt] = field(default_factory=dict)
    _bandwidth: dict[str, Learnt] = field(default_factory=dict)
    _prompt_factor: dict[str, Learnt] = field(default_factory=dict)

    def ran(self, run: Run) -> None:
        key = (run.model, run.device)
        evaluated = run.tokens_in - run.cached_tokens
        if evaluated >= SMALLEST_PROMPT and (run.prefill_ms or run.decode_ms):
            size = evaluated.bit_length()
            self._prefill.setdefault(key, {}).setdefault(size, Learnt()).take_in(run.prefill_ms / evaluated)
        if run.tokens_out > run.choices and run.decode_ms:
            per_token = run.decode_ms * run.choices / (run.tokens_out - run.choices)
            self._decode.setdefault(key, {}).setdefault(run.batch, Learnt()).take_in(per_token)
        if run.prompt_tokens_guessed and run.tokens_in:
            factor = run.tokens_in / run.prompt_tokens_guessed
            self._prompt_factor.setdefault(run.model, Learnt()).take_in(factor)
        if run.tokens_out:
            self.answers.came(run.app, run.model, Answer(run.tokens_out // run.choices, run.was_cut))

    def held(self, model: str, took_ms: float) -> None:
        """A run has given its slot back after so long, however it ended."""
        self._holding.setdefault(model, Learnt()).take_in(took_ms)

    def loaded(self, model: str, node_id: str, size_mib: int | None, took_ms: float) -> None:
        self._loads.setdefault((model, node_id), Learnt(weight=0.3)).take_in(took_ms)
        if size_mib and took_ms > 0:
            self._bandwidth.setdefault(node_id, Learnt()).take_in(size_mib / took_ms)

    def prefill_ms(self, model: str, device: str, tokens: int) -> Estimate | None:
        """Time to evaluate so many tokens of a prompt, by prompts of about that size."""
        sizes = self._prefill.get((model, device), {})
        if not sizes:
            return None
        nearest = min(sizes, key=lambda size: (abs(size - tokens.bit_length()), size))
        per_token = sizes[nearest].estimate
        return per_token and per_token.times(tokens)

    def decode_ms(self, model: str, device: str, batch: int, tokens: int) -> Estimate | None:
        """Time to generate so many tokens while `batch` runs share the worker; between known batches it is linear."""
        batches = self._decode.get((model, device), {})
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

    def holding_ms(self, model: str) -> Estimate | None:
        """How long a run of the model holds its slot, whatever it is asked."""
        learnt = self._holding.get(model)
        return learnt.estimate if learnt else None

    def fastest_token_ms(self, model: str) -> float | None:
        """The least time that a token of an answer takes, on any device and in any batch; 0 if that is uncertain."""
        batches = (learnt for (name, _), known in self._decode.items() if name == model for learnt in known.values())
        estimates = (learnt.estimate for learnt in batches)
        return min((max(0.0, one.mean - 2 * one.spread) for one in estimates if one), default=None)

    def load_ms(self, model: str, node_id: str, size_mib: int | None = None) -> Estimate | None:
        """As measured before; for a model that is new to the node, by its size and what others took there."""
        if measured := self._loads.get((model, node_id)):
            return measured.estimate
        bandwidth = self._bandwidth.get(node_id)
        known = bandwidth.estimate if bandwidth else None
        if not size_mib or known is None:
            return None
        took_ms = size_mib / known.mean
        return Estimate(took_ms, took_ms * known.spread / known.mean, known.count)

    def prompt_tokens(self, model: str, guessed: int) -> int:
        """The guess, corrected by how such guesses turned out for this model."""
        learnt = self._prompt_factor.get(model)
        factor = learnt.estimate if learnt else None
        return guessed if factor is None else round(guessed * factor.mean)
