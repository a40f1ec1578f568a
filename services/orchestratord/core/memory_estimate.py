"""How much device memory a model will take, before it was ever loaded.

From what the file says of itself, by the formula of `llorch.gguf.memory_estimate`; as long as that is unknown, a first
approximation from the file's size alone, meant to err on the high side. What is measured after the load replaces both
in the ledger. `vram_claim_mib` of the model overrides them.
"""

import math

from orchestratord.core.catalog import Model, ModelFacts

_RUNTIME_MIB = 300  # CUDA context, compute buffers
_CUDA_CONTEXT_MIB = 450  # measured values are from 300 to 500
_MASK_BYTES_PER_TOKEN = 1024  # attention's mask over the context, for a batch of 512 at 16 bits
_REFERENCE_MIB = 4096  # a model of 7 to 8 billion weights at 4 bits …
_REFERENCE_KV_KIB = 128  # … takes this much KV cache per token at 16 bits with grouped-query attention

_MIB = 2**20

_CACHE_SHARE = {"f16": 1.0, "q8_0": 0.53125, "q4_0": 0.28125}
"""Bytes per number relative to f16: a block of 32 has 34 (q8_0) or 18 (q4_0) bytes instead of 64."""


def estimate_mib(model: Model, size_mib: int) -> int:
    """Weights + KV cache + runtime, in MiB."""
    if model.spec.vram_claim_mib is not None:
        return model.spec.vram_claim_mib
    if model.facts is not None:
        return _by_facts(model, model.facts)
    return _by_size(model, size_mib)


def _by_facts(model: Model, facts: ModelFacts) -> int:
    share = _CACHE_SHARE[model.spec.cache_type]
    whole = model.context if facts.kv_bytes_per_token else 0
    window = min(model.context, facts.window_tokens)
    kv = share * (whole * facts.kv_bytes_per_token + window * facts.window_kv_bytes_per_token)
    cache_mib = model.slots * (kv / _MIB + facts.state_kib_per_slot / 1024)
    masks_mib = _MASK_BYTES_PER_TOKEN * (whole + window) / _MIB
    return math.ceil(facts.weights_mib + cache_mib + masks_mib + facts.compute_mib + _CUDA_CONTEXT_MIB)


def _by_size(model: Model, size_mib: int) -> int:
    """KV per token grows with the square root of the file's size."""
    kv_kib_per_token = _REFERENCE_KV_KIB * math.sqrt(size_mib / _REFERENCE_MIB) * _CACHE_SHARE[model.spec.cache_type]
    kv_mib = model.context * model.slots * kv_kib_per_token / 1024
    return math.ceil(size_mib * 1.05 + kv_mib + _RUNTIME_MIB)
