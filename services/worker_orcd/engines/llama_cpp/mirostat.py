"""Mirostat's one number, kept where it can be carried to another worker.

llama.cpp's own stage hides it together with a random generator. A stage made anew for every draw begins with
twice the target that it is given, and with a learning rate of 0 keeps that: so the number is handed in, and what
becomes of it is computed here.
"""

import math
import struct
from typing import Any

from llorch.errors import invalid_field
from llorch.options.sampling import Sampling

_STATE = struct.Struct("<d")
_ESTIMATED_FROM = 100
"""How many of the most likely tokens version 1 estimates from; llama.cpp's own default."""


class Mirostat:
    def __init__(self, lib: Any, vocabulary_size: int, sampling: Sampling, state: bytes) -> None:
        self._lib = lib
        self._vocabulary_size = vocabulary_size
        self._sampling = sampling
        self._surprise = _STATE.unpack(state)[0] if state else 2 * sampling.mirostat_tau

    def stage(self, seed: int) -> Any:
        half = self._surprise / 2
        if self._sampling.mirostat == 1:
            return self._lib.llama_sampler_init_mirostat(self._vocabulary_size, seed, half, 0.0, _ESTIMATED_FROM)
        return self._lib.llama_sampler_init_mirostat_v2(seed, half, 0.0)

    def observe(self, probability: float) -> None:
        """A token was picked that had this probability among those that were left."""
        surprise = -math.log2(probability) if probability > 0 else 0.0
        self._surprise -= self._sampling.mirostat_eta * (surprise - self._sampling.mirostat_tau)

    @property
    def state(self) -> bytes:
        return _STATE.pack(self._surprise)


def check_state(state: bytes) -> None:
    """Refuses what `Mirostat.state` never gives."""
    if len(state) != _STATE.size or not math.isfinite(_STATE.unpack(state)[0]):
        raise invalid_field("prefix", "lacks the sampler state that an output with mirostat is resumed with")
