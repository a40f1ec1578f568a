"""How much memory a model takes, from its header. Pure.

    weights         every tensor of the layers on the device, and the output matrix
    KV cache        per layer: cells × slots × (a row of keys + a row of values); windowed layers have fewer cells
    state           of recurrent layers, per slot
    compute buffer  the largest intermediate results of a batch, and the masks of attention; without flash attention
                    also its scores, which are as many per head and token as there are cells
    reading         a cache, states and a compute buffer of their own for texts that are read as a whole, for vectors
                    or scores; models that generate nothing have no other
    runtime         what CUDA takes for a context of its own

The formula is that of llama.cpp with one stream per slot, as the worker sets it up; the constants of the compute
buffer were fitted to what the library itself says (`worker_orcd.estimate`).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from llorch.cache_type import CacheType
from llorch.gguf.facts import ModelFacts
from llorch.gguf.layers import Layer
from llorch.gguf.reading import computes_logits, output_bytes, reading_shape
from llorch.gguf.tensor_types import row_bytes

CELLS_AT_ONCE = 256
"""The KV cache grows in steps of this many tokens."""

BATCH_TOKENS = 512
"""Tokens of one batch in the worker's engine."""

TOKENS_WITH_SCORES = 128
"""Most tokens that are computed at once where scores take memory."""

RUNTIME_BYTES = 450 * 2**20
"""A CUDA context with its kernels; measured values are from 300 to 500 MiB, by card and driver."""

_F16_BYTES, _F32_BYTES = 2, 4
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class LoadShape:
    """What is decided before a load. `context_per_slot` in tokens; cache types by their names in GGUF files."""

    slots: int
    context_per_slot: int
    cache_type_k: CacheType = CacheType.F16
    cache_type_v: CacheType = CacheType.F16
    on_gpu: bool = True

    @property
    def flash_attention(self) -> bool:
        return uses_flash_attention(self.cache_type_v, on_gpu=self.on_gpu)

    @property
    def tokens_at_once(self) -> int:
        return tokens_at_once(flash_attention=self.flash_attention)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one device."""

    weights: int
    cache: int
    state: int
    compute: int
    reading: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.state + self.compute + self.reading + self.runtime

    @property
    def total_mib(self) -> int:
        return -(-self.total // _MIB)


def uses_flash_attention(cache_type_v: CacheType, *, on_gpu: bool) -> bool:
    """Not on a CPU if it can be helped: llama.cpp has a slow way there for up to 63 tokens at once, which takes two to
    ten times as long as attention by matrix products. A quantized cache of values can't do without.
    """
    return on_gpu or cache_type_v != CacheType.F16


def tokens_at_once(*, flash_attention: bool) -> int:
    """Most tokens that the worker's engine computes at once, whatever the size of a batch."""
    return BATCH_TOKENS if flash_attention else TOKENS_WITH_SCORES


def estimate(facts: ModelFacts, shape: LoadShape) -> MemoryEstimate:
    """On one device."""
    (whole,) = estimate_split(facts, shape, (1.0,))
    return whole


def estimate_split(facts: ModelFacts, shape: LoadShape, shares: Sequence[float]) -> tuple[MemoryEstimate, ...]:
    """Per device: whole layers go by the shares, in order, and the output matrix counts as one more layer.

    On GPUs, the token embeddings stay in the host's memory. `shares` are proportions, one per device.
    """
    homes = _device_of_each_layer(len(facts.layers), shares)
    return tuple(
        _on_device(
            facts,
            shape,
            [layer for layer, home in zip(facts.layers, homes, strict=False) if home == device],
            has_output=homes[-1] == device,
        )
        for device in range(len(shares))
    )


def kv_bytes(layer: Layer, window: int, shape: LoadShape) -> int:
    """The KV cache of one layer for all slots."""
    if layer.key_width + layer.value_width == 0:
        return 0
    row = row_bytes(shape.cache_type_k, layer.key_width) + row_bytes(shape.cache_type_v, layer.value_width)
    return _cells(layer, window, shape) * shape.slots * row


def _on_device(facts: ModelFacts, shape: LoadShape, layers: Sequence[Layer], *, has_output: bool) -> MemoryEstimate:
    answers = facts.generates
    return MemoryEstimate(
        weights=_weights(facts, shape, layers, has_output=has_output),
        cache=sum(kv_bytes(layer, facts.window, shape) for layer in layers) if answers else 0,
        state=sum(layer.state_bytes for layer in layers) * shape.slots if answers else 0,
        compute=_compute(facts, shape, has_output=has_output) if answers else 0,
        reading=_reading(facts, shape, layers, has_output=has_output),
        runtime=RUNTIME_BYTES if shape.on_gpu else 0,
    )


def _weights(facts: ModelFacts, shape: LoadShape, layers: Sequence[Layer], *, has_output: bool) -> int:
    """What belongs to no layer goes with the output; on a CPU nothing is there twice."""
    own = sum(layer.weight_bytes for layer in layers)
    if not has_output:
        return own
    rest = facts.weight_bytes - sum(layer.weight_bytes for layer in facts.layers)
    if shape.on_gpu:
        rest -= facts.embedding_bytes
        rest += facts.output_bytes if facts.tied_output else 0
    return own + rest


def _compute(facts: ModelFacts, shape: LoadShape, *, has_output: bool) -> int:
    """Activations are there for all tokens that are computed at once, logits for one token per slot, and for each token
    a mask over the cells that it may look at. While scores are, about half of the activations are.
    """
    tokens = shape.tokens_at_once
    logits = _F32_BYTES * facts.vocabulary_size * min(tokens, shape.slots) if has_output else 0
    activations = _F32_BYTES * tokens * facts.activation_width
    attending = [layer for layer in facts.layers if layer.key_width]
    cells = {(layer.windowed, _cells(layer, facts.window, shape)) for layer in attending}
    mask = tokens * sum(count for _, count in cells)
    if shape.flash_attention:
        return max(logits, activations) + _F16_BYTES * mask
    scores = max((layer.heads * _cells(layer, facts.window, shape) for layer in attending), default=0)
    return max(logits, activations, _F32_BYTES * tokens * scores + activations // 2) + _F32_BYTES * mask


def _cells(layer: Layer, window: int, shape: LoadShape) -> int:
    """Tokens of one slot that the layer keeps."""
    cells = _padded(shape.context_per_slot)
    return min(cells, _padded(window + shape.tokens_at_once)) if layer.windowed else cells


def _reading(facts: ModelFacts, shape: LoadShape, layers: Sequence[Layer], *, has_output: bool) -> int:
    """Of all texts together: they share one cache of 16-bit numbers. Logits are there for every token, unless the
    model has none, activations for all that is computed at once, and masks with flash attention. On a CPU, the
    results are in the same memory.
    """
    reading = reading_shape(facts, shape.context_per_slot)
    cells = {windowed: reading.cells(facts.window if windowed else 0) for windowed in (False, True)}
    kept = sum(
        cells[layer.windowed] * _F16_BYTES * (layer.key_width + layer.value_width) + layer.state_bytes * reading.texts
        for layer in layers
    )
    logits = _F32_BYTES * facts.vocabulary_size * reading.tokens_at_once
    computed = _F32_BYTES * facts.activation_width * reading.tokens_at_once
    if has_output and computes_logits(facts):
        computed = max(computed, logits)
    mask = _F16_BYTES * reading.tokens_at_once * sum(cells[windowed] for windowed in _attending(facts))
    results = output_bytes(facts, reading) if has_output and not shape.on_gpu else 0
    return kept + computed + mask + results


def _attending(facts: ModelFacts) -> set[bool]:
    """Whether there are layers that attend, with a window and without one."""
    return {layer.windowed for layer in facts.layers if layer.heads and not layer.state_bytes}


def _device_of_each_layer(count: int, shares: Sequence[float]) -> list[int]:
    """And of the output, last. By llama.cpp's rule: a layer goes where its first byte would be if all were equal."""
    whole = sum(shares)
    bounds = [reached / whole for reached in accumulate(shares)]
    return [min(bisect_right(bounds, number / (count + 1)), len(shares) - 1) for number in range(count + 1)]


def _padded(tokens: int) -> int:
    return -(-tokens // CELLS_AT_ONCE) * CELLS_AT_ONCE
