"""How the next token is chosen: `Sampling` of the contract."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llorch.options.option import Option, Range, Table, collected, option, table_of


@dataclass(frozen=True, slots=True)
class Sampling:
    """The values that were given, and the defaults of all others. The seed is no part of it: every run has its own."""

    temperature: float = option(0.8, Range(0, 100), "0 takes the most likely token always.")
    top_k: int = option(40, Range(0, 1_000_000), "Only the k most likely tokens; 0 = all.")
    top_p: float = option(
        0.95, Range(0, 1, open_low=True), "Only the most likely tokens that together have this probability; 1 = all."
    )
    min_p: float = option(0.05, Range(0, 1), "Only tokens at least this likely relative to the most likely; 0 = all.")
    typical_p: float = option(1.0, Range(0, 1, open_low=True), "Locally typical sampling.", off=1)
    repeat_penalty: float = option(1.0, Range(0, 10, open_low=True), "Penalty on tokens that occurred.", off=1)
    repeat_last_n: int = option(64, Range(0, 65_536), "How many of the last tokens the penalties look at; 0 = none.")
    frequency_penalty: float = option(0.0, Range(-2, 2), "Penalty per occurrence.", off=0)
    presence_penalty: float = option(0.0, Range(-2, 2), "Penalty for having occurred at all.", off=0)
    dry_multiplier: float = option(0.0, Range(0, 100), "DRY: strength of the penalty on repeated sequences.", off=0)
    dry_base: float = option(1.75, Range(1, 10), "DRY: base of its growth.")
    dry_allowed_length: int = option(2, Range(0, 65_536), "DRY: length of a sequence that is allowed to repeat.")
    dry_penalty_last_n: int = option(64, Range(0, 65_536), "DRY: how many of the last tokens are searched; 0 = none.")
    xtc_probability: float = option(0.0, Range(0, 1), "XTC: chance to leave out the top tokens.", off=0)
    xtc_threshold: float = option(0.1, Range(0, 0.5), "XTC: probability from which a token counts as a top one.")
    mirostat: int = option(0, Range(0, 2), "Mirostat version, in place of top-k, typical, top-p, min-p and XTC.", off=0)
    mirostat_tau: float = option(5.0, Range(0, 100), "Mirostat: target entropy.")
    mirostat_eta: float = option(0.1, Range(0, 1), "Mirostat: learning rate.")
    logit_bias: Mapping[int, float] = collected(
        dict,
        Option("Added to the logits of tokens, by token id; -100 forbids.", Range(-100, 100), entries=Range(0, 1024)),
    )

    @property
    def uses_penalties(self) -> bool:
        penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        return self.repeat_last_n > 0 and penalties != (1.0, 0.0, 0.0)

    @property
    def uses_dry(self) -> bool:
        return self.dry_multiplier > 0 and self.dry_penalty_last_n > 0

    @property
    def uses_xtc(self) -> bool:
        return self.xtc_probability > 0 and not self.mirostat and self.temperature > 0

    @property
    def uses_mirostat(self) -> bool:
        return self.mirostat > 0 and self.temperature > 0


SAMPLING: Table = MappingProxyType(
    {
        **table_of(Sampling),
        "seed": Option(
            "Seed of the draws.", default="one that the orchestrator draws when it admits the task; the task shows it"
        ),
    }
)
