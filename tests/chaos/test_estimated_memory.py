"""Models of the sizes that people use: what is set aside for them against what the engine says it will allocate.

`make chaos` takes all 36 shapes, the suite one for each model.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from llorch.cache_type import CacheType
from llorch.gguf.memory_estimate import LoadShape, estimate
from llorch.gguf.model_file import read_model
from support import chaos_count
from support.engine_estimate import ask_engine
from support.hollow_models import Size, write_hollow_model
from support.tiny_models import CLS, LAST, MEAN, NO_POOLING

pytestmark = pytest.mark.native

MODELS: Mapping[str, tuple[str, Size, int]] = {
    "0.1 B": ("llama", Size(30, 576, 9, 3, 64, 1536, 49152, 8192), NO_POOLING),
    "1 B": ("llama", Size(16, 2048, 32, 8, 64, 8192, 128256, 131072), NO_POOLING),
    "4 B": ("qwen3", Size(36, 2560, 32, 8, 128, 9728, 151936, 40960), NO_POOLING),
    "4 B with windows": ("gemma3", Size(34, 2560, 8, 4, 256, 10240, 262208, 131072, 1024), NO_POOLING),
    "8 B": ("llama", Size(32, 4096, 32, 8, 128, 14336, 128256, 131072), NO_POOLING),
    "embeds, 0.6 B": ("qwen3", Size(28, 1024, 16, 8, 128, 3072, 151669, 32768), LAST),
    "embeds, small": ("bert", Size(12, 384, 12, 12, 32, 1536, 30522, 512), MEAN),
    "embeds, large": ("bert", Size(24, 1024, 16, 16, 64, 4096, 30522, 512), CLS),
    "embeds, all languages": ("bert", Size(24, 1024, 16, 16, 64, 4096, 250002, 8192), CLS),
    "embeds, long": ("nomic-bert", Size(12, 768, 12, 12, 64, 3072, 30528, 8192), MEAN),
    "embeds, with windows": ("modern-bert", Size(22, 768, 12, 12, 64, 1152, 50368, 8192, 128), MEAN),
    "embeds, both ways": ("qwen3", Size(28, 1024, 16, 8, 128, 3072, 151669, 32768), MEAN),
}
BOTH_WAYS = "embeds, both ways"
"""It generated before it was trained to see what follows, too: the library still computes logits."""
SHAPES = [
    LoadShape(4, 8192, on_gpu=False),
    LoadShape(1, 512, on_gpu=False),
    LoadShape(8, 4096, CacheType.Q8_0, CacheType.Q8_0, on_gpu=False),
]
MIB = 2**20


@pytest.mark.req("ORCH-1014")
@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_close_with_what_reads_texts(tmp_path: Path, name: str) -> None:
    """Within 5 % or 64 MiB, weights left out: their part is exact, and would hide the rest."""
    architecture, size, pooling = MODELS[name]
    path = write_hollow_model(tmp_path, architecture, size, pooling=pooling, is_bidirectional=name == BOTH_WAYS)
    facts = read_model(path)
    assert facts.generates == (pooling == NO_POOLING)
    for shape in SHAPES[: chaos_count.of(len(SHAPES))]:
        uses = ask_engine(path, shape)
        theirs = uses["cache"] + uses["compute"]
        ours = estimate(facts, shape)
        assert abs(ours.total - ours.weights - theirs) <= max(0.05 * theirs, 64 * MIB), shape
