"""The stages that a token is picked by, as llama.cpp has them, in one fixed order.

Logit bias, penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature, draw. Temperature 0
takes the most likely token after DRY. With mirostat, it and the temperature stand in place of all from top-k on.
Who changes the order of stages that were there raises `draws.PROFILE`, which receipts name.
"""

import ctypes
import math
from collections.abc import Iterator
from typing import Any

from llorch.options.sampling import Sampling
from worker_orcd.engines.llama_cpp.model import Model

FORBIDS = -100.0
"""A logit bias of this or less is no matter of degree."""

_DRY_BREAKERS = (b"\n", b":", b'"', b"*")
"""Where a repetition may begin anew; llama.cpp's own defaults."""

_NEARLY_ZERO = 1e-30
"""Relative probability below which a token is left out before the typical stage, which takes logarithms."""

_HARDLY_EVER = 1e-8
"""Relative probability below which mirostat gets no token: it sorts what it gets, which takes milliseconds for a whole
vocabulary.
"""


def lasting_stages(lib: Any, model: Model, sampling: Sampling) -> list[Any]:
    """The stages that live as long as their choice: some remember the tokens that were picked."""
    stages = [*_weighing(lib, model, sampling)]
    if sampling.temperature == 0:
        stages.append(lib.llama_sampler_init_greedy())
    elif sampling.mirostat:
        stages.append(lib.llama_sampler_init_min_p(_HARDLY_EVER, 1))
        stages.append(lib.llama_sampler_init_temp(sampling.temperature))
    else:
        stages += _narrowing(lib, sampling)
        if not sampling.uses_xtc:
            stages.append(lib.llama_sampler_init_temp(sampling.temperature))
    return stages


def xtc_stages(lib: Any, sampling: Sampling, seed: int) -> list[Any]:
    """XTC tosses a coin of its own: made anew for every draw."""
    return [
        lib.llama_sampler_init_xtc(sampling.xtc_probability, sampling.xtc_threshold, 1, seed),
        lib.llama_sampler_init_temp(sampling.temperature),
    ]


def memory_tokens(sampling: Sampling) -> int:
    """How many of the last tokens the stages look back on."""
    penalties = sampling.repeat_last_n if sampling.uses_penalties else 0
    dry = sampling.dry_penalty_last_n if sampling.uses_dry else 0
    return max(penalties, dry)


def _weighing(lib: Any, model: Model, sampling: Sampling) -> Iterator[Any]:
    if sampling.logit_bias:
        yield _logit_bias(lib, model, sampling)
    if sampling.uses_penalties:
        yield lib.llama_sampler_init_penalties(
            model.vocabulary_size,
            sampling.repeat_last_n,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
    if sampling.uses_dry:
        breakers = (ctypes.c_char_p * len(_DRY_BREAKERS))(*_DRY_BREAKERS)
        yield lib.llama_sampler_init_dry(
            model.vocab,
            sampling.dry_multiplier,
            sampling.dry_base,
            sampling.dry_allowed_length,
            sampling.dry_penalty_last_n,
            breakers,
            len(_DRY_BREAKERS),
        )


def _narrowing(lib: Any, sampling: Sampling) -> Iterator[Any]:
    if sampling.top_k > 0:
        yield lib.llama_sampler_init_top_k(sampling.top_k)
    if sampling.typical_p < 1:
        yield lib.llama_sampler_init_min_p(_NEARLY_ZERO, 1)
        yield lib.llama_sampler_init_typical(sampling.typical_p, 1)
    if sampling.top_p < 1:
        yield lib.llama_sampler_init_top_p(sampling.top_p, 1)
    if sampling.min_p > 0:
        yield lib.llama_sampler_init_min_p(sampling.min_p, 1)


def _logit_bias(lib: Any, model: Model, sampling: Sampling) -> Any:
    entries = (lib.llama_logit_bias * len(sampling.logit_bias))()
    for entry, (token_id, bias) in zip(entries, sorted(sampling.logit_bias.items()), strict=True):
        entry.token = token_id
        entry.bias = -math.inf if bias <= FORBIDS else bias
    return lib.llama_sampler_init_logit_bias(model.vocabulary_size, len(entries), entries)
