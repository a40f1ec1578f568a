"""How much memory a model will take on each device of a set, before it was ever loaded there.

From the model's file, by the formula of `llorch.gguf.memory_estimate`; as long as its header is unknown, a first
approximation from the file's size alone, meant to err on the high side. `vram_claim_mib` of the model overrides both.
Measurements are in `calibration`.
"""

import math
from collections.abc import Sequence

from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.gguf.facts import ModelFacts
from llorch.gguf.memory_estimate import RUNTIME_BYTES, LoadShape, estimate_split
from orchestratord.core.facts.model import Model

_REFERENCE_MIB = 4096  # a model of 7 to 8 billion weights at 4 bits …
_REFERENCE_KV_KIB = 128  # … takes this much KV cache per token at 16 bits with grouped-query attention

_MIB = 2**20

_CACHE_SHARE = {CacheType.F16: 1.0, CacheType.Q8_0: 0.53125, CacheType.Q4_0: 0.28125}
"""Bytes per number relative to f16: a block of 32 has 34 (q8_0) or 18 (q4_0) bytes instead of 64."""


def estimate_mib(model: Model, size_mib: int, context: int | None = None) -> int:
    """On one GPU."""
    (whole,) = estimate_split_mib(model, size_mib, context or model.context, (1.0,), DeviceKind.CUDA)
    return whole


def estimate_split_mib(
    model: Model, size_mib: int, context: int, shares: Sequence[float], kind: DeviceKind
) -> tuple[int, ...]:
    """Per device, in the order of `shares`, which are proportions of the layers. `context` is for one request."""
    on_gpu = kind is not DeviceKind.CPU
    if model.vram_claim_mib is not None:
        return _by_claim(model.vram_claim_mib, shares)
    if model.facts is not None:
        return _by_facts(model, model.facts, context, shares, on_gpu=on_gpu)
    return _by_size(model, size_mib, context, shares, on_gpu=on_gpu)


def _by_claim(claim_mib: int, shares: Sequence[float]) -> tuple[int, ...]:
    whole = sum(shares)
    return tuple(math.ceil(claim_mib * share / whole) for share in shares)


def _by_facts(
    model: Model, facts: ModelFacts, context: int, shares: Sequence[float], *, on_gpu: bool
) -> tuple[int, ...]:
    shape = LoadShape(model.slots, context, model.cache_type, model.cache_type, on_gpu=on_gpu)
    return tuple(part.total_mib for part in estimate_split(facts, shape, shares))


def _by_size(model: Model, size_mib: int, context: int, shares: Sequence[float], *, on_gpu: bool) -> tuple[int, ...]:
    """KV per token grows with the square root of the file's size."""
    kv_kib_per_token = _REFERENCE_KV_KIB * math.sqrt(size_mib / _REFERENCE_MIB) * _CACHE_SHARE[model.cache_type]
    kv_mib = context * model.slots * kv_kib_per_token / 1024
    runtime_mib = RUNTIME_BYTES / _MIB if on_gpu else 0
    whole = sum(shares)
    return tuple(math.ceil((size_mib * 1.05 + kv_mib) * share / whole + runtime_mib) for share in shares)
