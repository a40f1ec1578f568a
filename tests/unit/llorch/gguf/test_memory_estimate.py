"""The arithmetic of the estimate; how close it comes is in tests/contract/test_memory_estimates.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from llorch.cache_type import CacheType
from llorch.gguf.facts import ModelFacts
from llorch.gguf.memory_estimate import LoadShape, estimate, estimate_split
from llorch.gguf.model_file import read_model
from support.tiny_models import HEAD, KV_HEADS, LAYERS, write_tiny_model

SHAPE = LoadShape(slots=2, context_per_slot=4096)
BYTES_PER_TOKEN = 2 * 2 * KV_HEADS * HEAD


@pytest.fixture
def llama(tmp_path: Path) -> ModelFacts:
    return read_model(write_tiny_model(tmp_path, "llama"))


@pytest.fixture
def gemma(tmp_path: Path) -> ModelFacts:
    return read_model(write_tiny_model(tmp_path, "gemma2"))


def test_the_cache_has_a_row_of_keys_and_of_values_per_token_layer_and_slot(llama: ModelFacts) -> None:
    assert estimate(llama, SHAPE).cache == 2 * 4096 * LAYERS * BYTES_PER_TOKEN


def test_quantized_caches_are_smaller_by_their_block(llama: ModelFacts) -> None:
    keys = replace(SHAPE, cache_type_k=CacheType.Q8_0)
    both = replace(keys, cache_type_v=CacheType.Q4_0)
    whole = estimate(llama, SHAPE).cache
    assert estimate(llama, keys).cache == whole // 2 + whole // 2 * 34 // 64
    assert estimate(llama, both).cache == whole // 2 * 34 // 64 + whole // 2 * 18 // 64


def test_the_context_grows_in_steps(llama: ModelFacts) -> None:
    assert estimate(llama, replace(SHAPE, context_per_slot=257)) == estimate(
        llama, replace(SHAPE, context_per_slot=512)
    )


def test_windowed_layers_keep_a_window_and_a_batch(gemma: ModelFacts) -> None:
    assert estimate(gemma, SHAPE).cache == 2 * 2 * BYTES_PER_TOKEN * (4096 + 768)
    short = replace(SHAPE, context_per_slot=512)
    assert estimate(gemma, short).cache == 2 * LAYERS * BYTES_PER_TOKEN * 512


def test_states_do_not_grow_with_the_context(tmp_path: Path) -> None:
    mamba = read_model(write_tiny_model(tmp_path, "mamba"))
    assert estimate(mamba, SHAPE).cache == 0
    assert estimate(mamba, SHAPE).state == 2 * sum(layer.state_bytes for layer in mamba.layers)
    assert estimate(mamba, SHAPE) == estimate(mamba, replace(SHAPE, context_per_slot=8192))


def test_a_gpu_holds_the_output_matrix_and_not_the_embeddings(llama: ModelFacts, gemma: ModelFacts) -> None:
    on_cpu = replace(SHAPE, on_gpu=False)
    assert estimate(llama, on_cpu).weights == llama.weight_bytes
    assert estimate(llama, SHAPE).weights == llama.weight_bytes - llama.embedding_bytes
    assert estimate(gemma, SHAPE).weights == gemma.weight_bytes, "tied: the one matrix is on the GPU as well"
    assert estimate(llama, on_cpu).runtime == 0
    assert estimate(llama, SHAPE).runtime > 0


def test_a_split_goes_by_whole_layers_and_loses_nothing(llama: ModelFacts) -> None:
    whole = estimate(llama, SHAPE)
    first, second = estimate_split(llama, SHAPE, (3, 2))
    assert LAYERS == 4, "the output counts as one more layer: 3 go here, and 1 with the output there"
    assert first.cache == 3 * second.cache
    assert first.cache + second.cache == whole.cache
    assert first.weights + second.weights == whole.weights
    assert second.weights > llama.output_bytes
    assert first.compute <= whole.compute
    assert first.runtime == second.runtime == whole.runtime


@pytest.mark.parametrize("shares", [(1, 1), (24, 12), (1, 3), (5, 1, 1), (1e-9, 1)])
def test_layers_go_where_llama_cpp_puts_them(llama: ModelFacts, shares: tuple[float, ...]) -> None:
    """Its rule, written as its source has it: the first bound above il / (n + 1)."""
    parts = estimate_split(llama, SHAPE, shares)
    bounds = [sum(shares[: device + 1]) / sum(shares) for device in range(len(shares))]
    per_layer = estimate(llama, SHAPE).cache // LAYERS
    for device, part in enumerate(parts):
        here = [
            il for il in range(LAYERS) if device == next(at for at, it in enumerate(bounds) if it > il / (LAYERS + 1))
        ]
        assert part.cache == len(here) * per_layer


def test_a_total_is_rounded_up(llama: ModelFacts) -> None:
    whole = estimate(llama, SHAPE)
    assert 0 <= whole.total_mib * 2**20 - whole.total < 2**20
