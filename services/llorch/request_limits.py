"""The ranges that the contract gives for numbers in requests; checked at admission, and again before native code."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

MAX_TOKENS = 1_048_576
MAX_CHOICES = 16
MAX_STOPS = 64
MAX_STOP_BYTES = 1024
MAX_LOGIT_BIASES = 1024
MAX_TOP_LOGPROBS = 20
MAX_EMBED_INPUTS = 256
MAX_INPUT_BYTES = 4 * 1024 * 1024
"""Text of one request, all messages together, in UTF-8."""


@dataclass(frozen=True, slots=True)
class Range:
    """A closed range; with `open_low` the lower end itself is out."""

    low: float
    high: float
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        """NaN and infinities are in no range."""
        return isfinite(value) and self.low <= value <= self.high and not (self.open_low and value == self.low)

    def __str__(self) -> str:
        return f"{'above' if self.open_low else 'from'} {self.low:.10g} to {self.high:.10g}"


SAMPLING_RANGES: Mapping[str, Range] = {
    "temperature": Range(0, 100),
    "top_k": Range(0, 1_000_000),
    "top_p": Range(0, 1, open_low=True),
    "min_p": Range(0, 1),
    "typical_p": Range(0, 1, open_low=True),
    "repeat_penalty": Range(0, 10, open_low=True),
    "repeat_last_n": Range(0, 65_536),
    "frequency_penalty": Range(-2, 2),
    "presence_penalty": Range(-2, 2),
    "dry_multiplier": Range(0, 100),
    "dry_base": Range(1, 10),
    "dry_allowed_length": Range(0, 65_536),
    "dry_penalty_last_n": Range(0, 65_536),
    "xtc_probability": Range(0, 1),
    "xtc_threshold": Range(0, 0.5),
    "mirostat": Range(0, 2),
    "mirostat_tau": Range(0, 100),
    "mirostat_eta": Range(0, 1),
}
"""By the name of the field in `Sampling`."""

LOGIT_BIAS = Range(-100, 100)
