"""How much memory the brain sets aside, with and without what a model's file says."""

from pathlib import Path

from llorch.gguf.memory_estimate import LoadShape, estimate
from llorch.gguf.model_file import read_model
from orchestratord.convert.nodes import to_facts
from orchestratord.core.catalog import Model, ModelSpec, Origin
from orchestratord.core.memory_estimate import estimate_mib
from pool_managerd.convert import complete_progress
from pool_managerd.models.references import LocatedModel
from support.tiny_models import GENERATING, write_tiny_model


def model(**fields: object) -> Model:
    return Model(ModelSpec("m", "file:/m.gguf", **fields), Origin.FILE, "test", 0.0)  # type: ignore[arg-type]  # the test knows them


def test_with_the_files_facts_it_is_what_the_formula_says(tmp_path: Path) -> None:
    for architecture in GENERATING:
        path = write_tiny_model(tmp_path, architecture)
        facts = read_model(path)
        for context, slots, cache_type in ((4096, 4, "f16"), (32768, 1, "q8_0"), (8192, 16, "q4_0")):
            known = model(context=context, slots=slots, cache_type=cache_type)
            known.facts = to_facts(complete_progress(LocatedModel("file:/m.gguf", path, facts)))
            formula = estimate(facts, LoadShape(slots, context, cache_type, cache_type)).total_mib
            assert 0 <= estimate_mib(known, 100) - formula <= 4, (architecture, context)


def test_without_facts_the_size_has_to_do() -> None:
    small, large = estimate_mib(model(), 1000), estimate_mib(model(), 8000)
    assert 1000 < small < 8000 < large
    assert estimate_mib(model(context=32768), 1000) > small > estimate_mib(model(cache_type="q4_0"), 1000)


def test_a_claim_of_the_owner_wins(tmp_path: Path) -> None:
    assert estimate_mib(model(vram_claim_mib=7), 1000) == 7
