"""How much device memory a model will take, before it was ever loaded.

A first approximation from the file's size alone, meant to err on the high side; what is measured after the load
replaces it in the ledger. `vram_claim_mib` of the model overrides it.
"""

import math

from orchestratord.core.catalog import Model

_RUNTIME_MIB = 300  # CUDA context, compute buffers
_REFERENCE_MIB = 4096  # a model of 7 to 8 billion weights at 4 bits …
_REFERENCE_KV_KIB = 128  # … takes this much KV cache per token at 16 bits with grouped-query attention

_CACHE_SHARE = {"f16": 1.0, "q8_0": 0.53125, "q4_0": 0.28125}
"""Bytes per number relative to f16: a block of 32 has 34 (q8_0) or 18 (q4_0) bytes instead of 64."""


def estimate_mib(model: Model, size_mib: int) -> int:
    """Weights + KV cache + runtime, in MiB. KV per token grows with the square root of the file's size."""
    if model.spec.vram_claim_mib is not None:
        return model.spec.vram_claim_mib
    kv_kib_per_token = _REFERENCE_KV_KIB * math.sqrt(size_mib / _REFERENCE_MIB) * _CACHE_SHARE[model.spec.cache_type]
    kv_mib = model.context * model.slots * kv_kib_per_token / 1024
    return math.ceil(size_mib * 1.05 + kv_mib + _RUNTIME_MIB)
